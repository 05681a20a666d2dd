{
  networking.hostName = "nuc";
  system.stateVersion = "25.11";
}
