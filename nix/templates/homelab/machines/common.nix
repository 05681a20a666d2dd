# Every machine has an agent, named after it.
{
  services.nixdeploy-agent = {
    enable = true;
    url = "https://deploy.example.org";
    # nixdeploy token create --kind agent; needed until the machine is admitted.
    tokenFile = "/etc/nixdeploy/agent-token";
  };
  services.openssh.enable = true;
}
