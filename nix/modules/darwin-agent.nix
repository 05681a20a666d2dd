# nix-darwin: `services.nixdeploy-agent`. A daemon of root for each agent; after a reboot in the middle of an activation
# the agent's own start goes back. launchd has no credentials: the token's file is named, and only root may read it.
{ config, lib, pkgs, ... }:
let
  shared = import ./agent-options.nix { inherit lib pkgs; };
  cfg = config.services.nixdeploy-agent;
  root = "/var/lib/nixdeploy/agents";
  agents = shared.enabled cfg;
  daemon = agent: {
    serviceConfig = {
      ProgramArguments = [ "${agent.package}/bin/nixdeploy" ] ++ shared.arguments agent;
      EnvironmentVariables =
        { PATH = "${lib.makeBinPath [ config.nix.package ]}:/usr/bin:/bin:/usr/sbin:/sbin"; }
        // shared.environment agent
        // lib.optionalAttrs (agent.tokenFile != null) { NIXDEPLOY_AGENT_TOKEN_FILE = agent.tokenFile; };
      RunAtLoad = true;
      KeepAlive = true;
      # What it activates must outlive it: launchd would kill the job's process group.
      AbandonProcessGroup = true;
      StandardOutPath = cfg.logFile;
      StandardErrorPath = cfg.logFile;
    };
  };
in
{
  _file = "nixdeploy/nix/modules/darwin-agent.nix";
  key = "nixdeploy/darwin-agent";

  options.services.nixdeploy-agent = shared.options {
    inherit cfg root;
    what = "this system";
    name = { default = config.networking.hostName; defaultText = lib.literalExpression "config.networking.hostName"; };
  } // {
    logFile = lib.mkOption {
      type = lib.types.str;
      default = "/var/log/nixdeploy-agent.log";
      description = "Where agents write what they do.";
    };
  };

  config = lib.mkIf (agents != [ ]) {
    assertions = shared.assertions agents;
    environment.systemPackages = [ cfg.package ];
    # nix-darwin puts "org.nixos." before the name, which is where the agent looks for its job.
    launchd.daemons = lib.mkMerge (map (agent: { "nixdeploy-agent-${agent.name}" = daemon agent; }) agents);
  };
}
