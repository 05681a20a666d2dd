# The coordinator is a machine like any other. Its hardware-configuration.nix belongs here, too.
{
  networking.hostName = "vps";
  services.nixdeploy-server = {
    enable = true;
    publicUrl = "https://deploy.example.org";
    reverseProxy = "caddy";
    openFirewall = true;
  };
  system.stateVersion = "25.11";
}
