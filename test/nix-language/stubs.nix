# What our modules find around them, without nixpkgs: packages, and the options of NixOS, nix-darwin and Home Manager that
# they set. `prefix`/bin/nixdeploy is the program.
{ lib, prefix ? "/usr/local", platform ? "linux" }:
let
  inherit (lib) mkOption types;
  make = import ../fixtures/nix/make.nix;
  package = name: outPath: { type = "derivation"; inherit name outPath; pname = name; };
  option = type: default: mkOption { inherit type default; };
  anything = option types.anything { };
  list = option (types.listOf types.anything) [ ];
  unit = types.submodule {
    options = {
      description = option types.str "";
      wantedBy = list;
      wants = list;
      after = list;
      path = list;
      environment = option (types.attrsOf types.str) { };
      restartIfChanged = option types.bool true;
      stopIfChanged = option types.bool true;
      unitConfig = option (types.attrsOf types.anything) { };
      serviceConfig = option (types.attrsOf types.anything) { };
    };
  };
  assertions = { assertions = list; };
in
{
  pkgs = {
    inherit lib;
    stdenv.hostPlatform = { isLinux = platform == "linux"; isDarwin = platform == "darwin"; };
    nixdeploy = package "nixdeploy" prefix;
    grub2 = package "grub" "/grub2";
    writeText = name: text: make name { inherit text; passAsFile = [ "text" ]; } ''cat "$textPath" > $out'';
    writeShellScript = name: text: make name { text = "#!/bin/sh\n${text}\n"; passAsFile = [ "text" ]; } ''
      cat "$textPath" > $out
      chmod +x $out
    '';
  };
  nixos.options = assertions // {
    networking.hostName = option types.str "nuc";
    networking.firewall.allowedTCPPorts = list;
    nix.package = option types.anything "/usr";
    boot.loader.grub.enable = option types.bool false;
    environment.systemPackages = list;
    systemd.services = option (types.attrsOf unit) { };
    services.nginx.enable = option types.bool false;
    services.nginx.virtualHosts = option (types.attrsOf types.anything) { };
    services.caddy.enable = option types.bool false;
    services.caddy.virtualHosts = option (types.attrsOf types.anything) { };
  };
  darwin.options = assertions // {
    networking.hostName = option types.str "mac";
    nix.package = option types.anything "/nix-package";
    environment.systemPackages = list;
    launchd.daemons = option (types.attrsOf types.anything) { };
  };
  home.options = assertions // {
    xdg.stateHome = option types.str "/home/me/.local/state";
    home.packages = list;
    systemd.user.services = option (types.attrsOf types.anything) { };
    launchd.agents = option (types.attrsOf types.anything) { };
  };
}
