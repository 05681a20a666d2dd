# What our modules find around them, without nixpkgs: packages, the options of NixOS, nix-darwin and Home Manager that they
# set, and what those make of them (`render`). No less strict than the real ones, which real.nix has where they are at hand,
# as far as our modules go: a key or a value that these do not know is an error. `prefix`/bin/nixdeploy is the program.
{ lib, prefix ? "/usr/local", platform ? "linux", system ? builtins.currentSystem }:
let
  inherit (lib) mkOption types;
  make = import ../fixtures/nix/make.nix;
  package = name: outPath: { type = "derivation"; inherit name outPath; pname = name; };
  option = type: default: mkOption { inherit type default; };
  anything = option types.anything { };
  list = option (types.listOf types.anything) [ ];
  set = options: option (types.submodule { inherit options; }) { };

  # systemd, as NixOS and Home Manager write it.
  unitName = types.strMatching "[a-zA-Z0-9@%:_.\\-]+[.](service|socket|device|mount|automount|swap|target|path|timer|scope|slice)";
  setting = types.anything;
  unit = types.submodule {
    options = {
      description = option types.singleLineStr "";
      wantedBy = option (types.listOf unitName) [ ];
      wants = option (types.listOf unitName) [ ];
      after = option (types.listOf unitName) [ ];
      path = option (types.listOf (types.oneOf [ types.package types.str ])) [ ];
      environment = option (types.attrsOf types.str) { };
      restartIfChanged = option types.bool true;
      stopIfChanged = option types.bool true;
      unitConfig = option (types.attrsOf setting) { };
      serviceConfig = option (types.attrsOf setting) { };
    };
  };
  homeUnit = types.submodule {
    options = {
      Unit.Description = option (types.nullOr types.str) null;
      Service = option (types.attrsOf setting) { };
      Install.WantedBy = option (types.listOf types.str) [ ];
    };
  };

  nginxHost = types.submodule {
    options = {
      forceSSL = option types.bool false;
      enableACME = option types.bool false;
      locations = option (types.attrsOf nginxLocation) { };
    };
  };
  nginxLocation = types.submodule {
    options = {
      proxyPass = option (types.nullOr types.str) null;
      proxyWebsockets = option types.bool false;
      recommendedProxySettings = option types.bool false;
      extraConfig = option types.str "";
    };
  };
  caddyHost = types.submodule { options.extraConfig = option types.str ""; };

  # launchd, as nix-darwin and Home Manager write it.
  jobOptions = {
    EnvironmentVariables = option (types.nullOr (types.attrsOf types.str)) null;
    ProgramArguments = option (types.nullOr (types.listOf types.str)) null;
    RunAtLoad = option (types.nullOr types.bool) null;
    KeepAlive = option (types.nullOr types.bool) null;
    AbandonProcessGroup = option (types.nullOr types.bool) null;
    StandardOutPath = option (types.nullOr types.path) null;
    StandardErrorPath = option (types.nullOr types.path) null;
  };
  daemon = types.submodule {
    options = {
      command = option types.str "";
      environment = option (types.attrsOf types.str) { };
      serviceConfig = set jobOptions;
    };
  };
  homeJob = types.submodule {
    options.enable = option types.bool false;
    options.config = set jobOptions;
  };
  # The store is on a volume of its own, which is there later than launchd.
  waitForStore = command: [ "/bin/sh" "-c" "/bin/wait4path /nix/store && exec ${command}" ];
  given = value:
    if builtins.isAttrs value
    then builtins.listToAttrs (builtins.concatMap (name: if value.${name} == null then [ ] else [ { inherit name; value = value.${name}; } ]) (builtins.attrNames value))
    else value;
  jobsOf = prefix: jobOf: set: builtins.listToAttrs (map
    (key: { name = "${prefix}${key}.plist"; value = given (jobOf set.${key}) // { Label = "${prefix}${key}"; }; })
    (builtins.attrNames set));
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
    # Of nixos/modules: their names and types.
    networking.hostName = option types.str "nuc";
    networking.firewall.allowedTCPPorts = list;
    nix.package = option types.anything "/usr";
    boot.loader.grub.enable = option types.bool false;
    environment.systemPackages = list;
    systemd.services = option (types.attrsOf unit) { };
    services.nginx.enable = option types.bool false;
    services.nginx.virtualHosts = option (types.attrsOf nginxHost) { };
    services.caddy.enable = option types.bool false;
    services.caddy.virtualHosts = option (types.attrsOf caddyHost) { };
  };
  nixos.render = config: config.systemd.services;

  darwin.options = assertions // {
    networking.hostName = option (types.nullOr types.str) null;
    nix.enable = option types.bool true;
    nix.package = option types.anything "/nix-package";
    environment.systemPackages = list;
    launchd.daemons = option (types.attrsOf daemon) { };
  };
  darwin.render = config: jobsOf "org.nixos."
    (job: job.serviceConfig // { ProgramArguments = waitForStore job.command; EnvironmentVariables = job.environment; })
    config.launchd.daemons;

  home.options = assertions // {
    xdg.stateHome = option types.str "/home/me/.local/state";
    home.homeDirectory = option types.str "/home/me";
    nix.enable = option types.bool true;
    nix.package = option (types.nullOr types.anything) null;
    home.packages = list;
    systemd.user.services = option (types.attrsOf homeUnit) { };
    launchd.agents = option (types.attrsOf homeJob) { };
  };
  home.render = config:
    if platform == "darwin" then
      jobsOf "org.nix-community.home."
        (job: job.config // { ProgramArguments = waitForStore (lib.escapeShellArgs job.config.ProgramArguments); })
        config.launchd.agents
    else
      builtins.listToAttrs (map
        (name: { name = "systemd/user/${name}.service"; value = config.systemd.user.services.${name}; })
        (builtins.attrNames config.systemd.user.services));
}
