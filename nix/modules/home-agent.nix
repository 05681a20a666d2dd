# Home Manager: `services.nixdeploy-agent`, a unit of `systemd --user`, or a job of launchd on a Mac. By default it keeps
# the very generation that contains it. Let the user linger (`loginctl enable-linger`), so that it runs without a login.
{ config, lib, pkgs, ... }:
let
  shared = import ./agent-options.nix { inherit config lib pkgs; owner = "home"; };
  inherit (shared) agents cfg;
  unitText = import ./unit-text.nix;
  isLinux = pkgs.stdenv.hostPlatform.isLinux;
  # Home Manager's script looks for Nix itself, and services of users have a short PATH. Where the machine has programs, the
  # agent knows; not where a user has a Nix of his own.
  directories =
    lib.optional (config.nix.enable && config.nix.package != null) "${config.nix.package}/bin"
    ++ [ "${config.home.homeDirectory}/.nix-profile/bin" "${config.xdg.stateHome}/nix/profile/bin" ];
  environment = agent: { PATH = lib.concatStringsSep ":" directories; } // shared.environment { namesTokenFile = true; } agent;

  unit = agent: {
    Unit.Description = "nixdeploy agent ${agent.name}";
    Service = {
      Type = "notify";
      Environment = unitText.assignments (environment agent);
      ExecStart = unitText.command (shared.command agent);
      Restart = "always";
      RestartSec = 5;
    };
    Install.WantedBy = [ "default.target" ];
  };
  job = agent: let logFile = "${config.home.homeDirectory}/Library/Logs/nixdeploy-agent-${agent.name}.log"; in {
    enable = true;
    config = {
      ProgramArguments = shared.command agent;
      EnvironmentVariables = environment agent;
      RunAtLoad = true;
      KeepAlive = true;
      AbandonProcessGroup = true;
      # launchd would throw it away.
      StandardOutPath = logFile;
      StandardErrorPath = logFile;
    };
  };
  each = make: lib.mkMerge (map (agent: { "nixdeploy-agent-${agent.name}" = make agent; }) agents);
in
{
  _file = "nixdeploy/nix/modules/home-agent.nix";
  key = "nixdeploy/home-agent";

  options.services.nixdeploy-agent = shared.options;

  config = lib.mkIf (agents != [ ]) (lib.mkMerge [
    {
      inherit (shared) assertions;
      home.packages = [ cfg.package ];
    }
    (lib.mkIf isLinux { systemd.user.services = each unit; })
    (lib.mkIf (!isLinux) { launchd.agents = each job; })
  ]);
}
