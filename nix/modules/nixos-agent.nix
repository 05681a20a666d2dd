# NixOS: `services.nixdeploy-agent`. Each agent of the system gets its own unit and the one that goes back after a
# reboot in the middle of an activation; a system without them is refused by its agent (ARCHITECTURE.md, "Under systemd").
{ config, lib, pkgs, ... }:
let
  shared = import ./agent-options.nix { inherit config lib pkgs; owner = "system"; };
  inherit (shared) agents cfg profilePathOf;
  unitText = import ./unit-text.nix;

  # Home directories are out of its reach, unless what it keeps is in one.
  isInHome = path: lib.any (home: lib.hasPrefix home "${path}/") [ "/home/" "/root/" "/run/user/" ];
  placesOf = agent:
    lib.optional (agent.profile != null && lib.hasPrefix "/" agent.profile) (builtins.dirOf agent.profile)
    ++ lib.optional (!(lib.hasPrefix "/var/lib/" agent.stateDirectory)) agent.stateDirectory;
  # What boot loaders are asked with; `bootctl` comes with systemd.
  programs = [ config.nix.package ] ++ lib.optional config.boot.loader.grub.enable pkgs.grub2;

  agentUnit = agent: {
    description = "nixdeploy agent ${agent.name}";
    wantedBy = [ "multi-user.target" ];
    # Not after network-online.target, which may take minutes where a cable is missing: after a reboot that is tried, the
    # undo unit's window would be over before the agent, which dials until it gets through, had begun to.
    after = [ "network.target" "nix-daemon.socket" ];
    path = programs;
    environment = unitText.environment (shared.environment { namesTokenFile = false; } agent);
    # It goes on telling of a switch until it is restarted, at the switch's end.
    stopIfChanged = false;
    serviceConfig = {
      Type = "notify";
      ExecStart = unitText.command (shared.command agent);
      Restart = "always";
      RestartSec = 5;
      # What it activates runs outside of its unit.
      ProtectSystem = "strict";
      ReadWritePaths = [ "/nix/var/nix" ] ++ map (place: "-${place}") (placesOf agent);
      ProtectHome = !(lib.any isInHome (placesOf agent));
      PrivateTmp = true;
      PrivateDevices = true;
      ProtectKernelModules = true;
      ProtectClock = true;
      NoNewPrivileges = true;
      RestrictSUIDSGID = true;
      LockPersonality = true;
      RestrictRealtime = true;
      RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
    }
    // lib.optionalAttrs (lib.hasPrefix "/var/lib/" agent.stateDirectory) {
      StateDirectory = lib.removePrefix "/var/lib/" agent.stateDirectory;
      StateDirectoryMode = "0700";
    }
    // lib.optionalAttrs (agent.tokenFile != null) {
      LoadCredential = [ "nixdeploy-agent-token:${agent.tokenFile}" ];
      # Without a value to fall back to, the unit of an agent that was admitted long ago would not start once the file is gone.
      SetCredential = [ "nixdeploy-agent-token:\\n" ];
    };
  };

  # At each boot: finishes or undoes what is on record. Needs no network; never stopped by a switch, which it may be running.
  undoUnit = agent: {
    description = "nixdeploy: goes back after a reboot in the middle of an activation (${agent.name})";
    wantedBy = [ "multi-user.target" ];
    path = programs;
    restartIfChanged = false;
    stopIfChanged = false;
    unitConfig.X-StopOnRemoval = false;
    serviceConfig = {
      Type = "exec";
      ExecStart = unitText.command [ "${agent.package}/bin/nixdeploy" "supervise" "--state-dir" agent.stateDirectory ];
      Restart = "on-failure";
      RestartSec = 5;
    };
  };

  isOfSystem = agent: profilePathOf agent == "/nix/var/nix/profiles/system";
in
{
  _file = "nixdeploy/nix/modules/nixos-agent.nix";
  # So that it may be imported twice, for example by us and by the user.
  key = "nixdeploy/nixos-agent";

  options.services.nixdeploy-agent = shared.options;

  config = lib.mkIf (agents != [ ]) {
    inherit (shared) assertions;
    environment.systemPackages = [ cfg.package ];
    systemd.services = lib.mkMerge (
      map (agent: { "nixdeploy-agent-${agent.name}" = agentUnit agent; }) agents
      ++ map (agent: { "nixdeploy-undo-${agent.name}" = undoUnit agent; }) (builtins.filter isOfSystem agents)
    );
  };
}
