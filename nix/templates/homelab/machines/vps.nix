# The coordinator is a machine like any other.
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
