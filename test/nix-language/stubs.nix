# What our modules find around them, without nixpkgs: packages, and the options of NixOS, nix-darwin and Home Manager that
# they set. `prefix`/bin/nixdeploy is the program.
{ lib, prefix ? "/usr/local", platform ? "linux", system ? builtins.currentSystem }:
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
  pkgs = rec {
    inherit lib;
    stdenv = {
      hostPlatform = { inherit system; isLinux = platform == "linux"; isDarwin = platform == "darwin"; };
      # Phases, hooks and programs of this system: enough for what nix/ builds.
      mkDerivation = arguments: derivation (removeAttrs arguments [ "passthru" "meta" "nativeBuildInputs" ] // {
        name = arguments.name or "${arguments.pname}-${arguments.version}";
        system = builtins.currentSystem;
        builder = "/bin/bash";
        PATH = "/usr/bin:/bin";
        NIX_CC = compiler;
        args = [ "-euc" ''
          runHook() { :; }
          if [ -z "''${dontUnpack-}" ]; then cp -r $src source; chmod -R u+w source; cd source; fi
          eval "''${buildPhase-}"
          if [ -z "''${dontInstall-}" ]; then eval "''${installPhase-}"; fi
        '' ];
      }) // arguments.passthru or { } // { meta = arguments.meta or { }; };
    };
    # It has a loader of its own, as every glibc of nixpkgs.
    compiler = make "compiler" { } ''
      mkdir -p $out/nix-support $out/lib
      cp -L /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 $out/lib 2>&1 || true
      printf %s $out/lib/ld-linux-* > $out/nix-support/dynamic-linker
    '';
    callPackage = file: more:
      let function = import file; in function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // more);
    mkShell = arguments: arguments // { type = "derivation"; name = "shell"; };
    nodejs = package "nodejs" "/usr";
    nix = package "nix" "/usr";
    cacert = package "cacert" "/etc/ssl";
    patchelf = package "patchelf" "/usr";
    nixdeploy = package "nixdeploy" prefix;
    grub2 = package "grub" "/grub2";
    writeText = name: text: make name { inherit text; passAsFile = [ "text" ]; } ''cat "$textPath" > $out'';
    writeShellScript = name: text: make name { text = "#!/bin/sh\n${text}\n"; passAsFile = [ "text" ]; } ''
      cat "$textPath" > $out
      chmod +x $out
    '';
  };
in
{
  inherit pkgs;
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
