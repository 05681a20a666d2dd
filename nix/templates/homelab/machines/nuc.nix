# Its hardware-configuration.nix belongs here, too.
{
  networking.hostName = "nuc";
  system.stateVersion = "25.11";
}
