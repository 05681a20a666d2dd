# Home Manager: `services.nixdeploy-agent`, a unit of `systemd --user`, or a job of launchd on a Mac. By default it keeps
# the very generation that contains it. Let the user linger (`loginctl enable-linger`), so that it runs without a login.
{ config, lib, pkgs, ... }:
let
  shared = import ./agent-options.nix { inherit lib pkgs; };
  execStart = import ./systemd-words.nix;
  cfg = config.services.nixdeploy-agent;
  root = "${config.xdg.stateHome}/nixdeploy/agents";
  agents = shared.enabled cfg;
  isLinux = pkgs.stdenv.hostPlatform.isLinux;
  environment = agent:
    shared.environment agent
    // lib.optionalAttrs (agent.tokenFile != null) { NIXDEPLOY_AGENT_TOKEN_FILE = agent.tokenFile; };
  command = agent: [ "${agent.package}/bin/nixdeploy" ] ++ shared.arguments agent;

  unit = agent: {
    Unit.Description = "nixdeploy agent ${agent.name}";
    Service = {
      Type = "notify";
      Environment = map (key: builtins.toJSON (builtins.replaceStrings [ "%" ] [ "%%" ] "${key}=${(environment agent).${key}}"))
        (builtins.attrNames (environment agent));
      ExecStart = execStart (command agent);
      Restart = "always";
      RestartSec = 5;
    };
    Install.WantedBy = [ "default.target" ];
  };
  job = agent: {
    enable = true;
    config = {
      ProgramArguments = command agent;
      EnvironmentVariables = environment agent;
      RunAtLoad = true;
      KeepAlive = true;
      AbandonProcessGroup = true;
    };
  };
in
{
  _file = "nixdeploy/nix/modules/home-agent.nix";
  key = "nixdeploy/home-agent";

  options.services.nixdeploy-agent = shared.options {
    inherit cfg root;
    what = "this home";
    name = { };
  };

  config = lib.mkIf (agents != [ ]) (lib.mkMerge [
    {
      assertions = shared.assertions agents;
      home.packages = [ cfg.package ];
    }
    (lib.mkIf isLinux {
      systemd.user.services = lib.mkMerge (map (agent: { "nixdeploy-agent-${agent.name}" = unit agent; }) agents);
    })
    (lib.mkIf (!isLinux) {
      launchd.agents = lib.mkMerge (map (agent: { "nixdeploy-agent-${agent.name}" = job agent; }) agents);
    })
  ]);
}
