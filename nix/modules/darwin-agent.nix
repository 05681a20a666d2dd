# nix-darwin: `services.nixdeploy-agent`. A daemon of root for each agent; after a reboot in the middle of an activation
# the agent's own start goes back. launchd has no credentials: the token's file is named, and only root may read it.
{ config, lib, pkgs, ... }:
let
  shared = import ./agent-options.nix { inherit config lib pkgs; owner = "system"; };
  inherit (shared) agents cfg;
  # Who has Nix from elsewhere (`nix.enable = false`) has no `nix.package`; the agent looks in Nix's own profile, too.
  directories = map (package: "${package}/bin") (lib.optional (config.nix.enable or true) config.nix.package)
    ++ [ "/usr/bin" "/bin" "/usr/sbin" "/sbin" ];
  daemon = agent: {
    # nix-darwin lets a `command` wait until the store is mounted, which at boot is later than launchd starts daemons.
    command = lib.escapeShellArgs (shared.command agent);
    environment = { PATH = lib.concatStringsSep ":" directories; } // shared.environment { namesTokenFile = true; } agent;
    serviceConfig = {
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

  options.services.nixdeploy-agent = shared.options // {
    logFile = lib.mkOption {
      type = lib.types.str;
      default = "/var/log/nixdeploy-agent.log";
      description = "Where agents write what they do.";
    };
  };

  config = lib.mkIf (agents != [ ]) {
    inherit (shared) assertions;
    environment.systemPackages = [ cfg.package ];
    # nix-darwin puts "org.nixos." before the name, which is where the agent looks for its job.
    launchd.daemons = lib.mkMerge (map (agent: { "nixdeploy-agent-${agent.name}" = daemon agent; }) agents);
  };
}
