# Our modules in the real module systems: nix-darwin, Home Manager, and of NixOS its services. What comes out is the text of
# each file that they write for us: { FILE = TEXT; }. An assertion of ours that does not hold is an error, as there.
#
# `nixpkgs` is a tree with nixpkgs' `lib`, and for NixOS with nixos/lib, for Home Manager with nixos/modules/misc. Its packages
# are not taken: a package here that writes a text is that text, which can so be read without building anything.
{ nixpkgs, nixDarwin ? null, homeManager ? null, kind, platform ? "linux", prefix ? "/usr/local", modules }:
let
  lib = import (nixpkgs + "/lib");
  stubs = import ./stubs.nix { inherit lib prefix platform; };
  package = name: outPath: { type = "derivation"; inherit name outPath; pname = name; version = "2.30"; meta = { }; };
  text = name: contents: package name contents;
  # Must be a path.
  writing = { name, text, ... }: package name "/${text}";
  anyFormat = arguments: { type = lib.types.anything; generate = name: value: package name "/${name}"; };
  pkgs = lib.genAttrs [ "bash" "coreutils" "findutils" "gnugrep" "gnused" "systemd" "glibcLocales" ] (name: package name "/usr") // {
    inherit lib;
    path = nixpkgs;
    stdenv = {
      hostPlatform = lib.systems.elaborate { linux = "x86_64-linux"; darwin = "aarch64-darwin"; }.${platform};
      shell = "/bin/sh";
    };
    formats = lib.genAttrs [ "ini" "json" "toml" "yaml" "keyValue" ] (name: anyFormat);
    nix = package "nix" "/nix-package" // { out = package "nix" "/nix-package"; };
    nixdeploy = package "nixdeploy" prefix;
    grub2 = package "grub" "/grub2";
    # What a unit names must be a path: the stand-in's, which is compared.
    writeText = name: if name == "nixdeploy-health-checks.json" then stubs.pkgs.writeText name else text name;
    writeTextFile = writing;
    writeScriptBin = text;
    runCommand = name: environment: text name;
  };
  # Whoever takes `pkgs` from a nixpkgs of its own gets these.
  withPkgs = { _module.args.pkgs = lib.mkForce pkgs; };
  ours = import ./modules.nix;

  isOurs = name: builtins.match ".*nixdeploy.*" name != null;
  onlyOurs = lib.filterAttrs (name: value: isOurs name);
  holds = config: result:
    let failed = builtins.filter (one: !one.assertion && isOurs one.message) config.assertions; in
    if failed == [ ] then result else throw "Failed assertions:\n${lib.concatMapStringsSep "\n" (one: "- ${one.message}") failed}";

  systems = {
    nixos =
      let
        evaluated = lib.evalModules {
          class = "nixos";
          specialArgs = { inherit pkgs; };
          modules = ours.nixos ++ modules ++ [
            ({ config, ... }: {
              options = stubs.nixos.options // {
                systemd = {
                  package = lib.mkOption { default = pkgs.systemd; };
                  globalEnvironment = lib.mkOption { default = { }; };
                  enableStrictShellChecks = lib.mkOption { default = false; };
                  services = lib.mkOption { type = (utilsOf config).types.services; default = { }; };
                };
              };
            })
          ];
        };
        utilsOf = config: (import (nixpkgs + "/nixos/lib/utils.nix") { inherit lib config pkgs; }).systemdUtils;
        inherit (evaluated) config;
        units = map (utilsOf config).lib.serviceToUnit (builtins.attrValues (onlyOurs config.systemd.services));
      in
      holds config (lib.listToAttrs (map (unit: { inherit (unit) name; value = unit.text; }) units));

    darwin =
      let
        inherit (import (nixDarwin + "/eval-config.nix") {
          inherit lib;
          enableNixpkgsReleaseCheck = false;
          modules = ours.darwin ++ modules ++ [ withPkgs { nixpkgs = { hostPlatform = "aarch64-darwin"; pkgs = lib.mkForce pkgs; }; } ];
        }) config;
      in
      holds config (lib.mapAttrs (name: file: file.text) (onlyOurs config.environment.launchDaemons));

    home =
      let
        inherit (import (homeManager + "/modules") {
          inherit lib pkgs;
          minimal = true;
          check = false;
          configuration = {
            imports = ours.home ++ modules ++ [ withPkgs ];
            home = { username = "me"; homeDirectory = "/home/me"; stateVersion = "25.11"; };
          };
        }) config;
        # Of a file in a package of its own, the path is a slash, what it says, a slash and its name.
        textOf = name: file: lib.removePrefix "/" (lib.removeSuffix "/${builtins.baseNameOf name}" "${file.source}");
        isLink = name: builtins.match ".*[.]wants/.*" name != null;
        units = lib.mapAttrs textOf (lib.filterAttrs (name: file: isOurs name && !isLink name) config.xdg.configFile);
        # A shell script makes the folder of jobs: ['NAME.plist']='TEXT' for each.
        parts = builtins.split "\\['([^']*[.]plist)']='(<[?]xml[^']*</plist>)'" config.home.extraBuilderCommands;
        jobs = lib.listToAttrs (map (part: { name = builtins.elemAt part 0; value = builtins.elemAt part 1; }) (builtins.filter builtins.isList parts));
      in
      if platform == "linux" then units else jobs;
  };
in
systems.${kind}
