# A flake in the place of nixpkgs: `lib`, packages, and a `nixosSystem` that evaluates modules and makes a look-alike of a system.
{
  outputs = { self }:
    let
      lib = import ./test/nix-language/lib.nix;
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      stubsOf = system: import ./test/nix-language/stubs.nix {
        inherit lib system;
        platform = builtins.elemAt (lib.splitString "-" system) 1;
      };
      inherit (lib) mkOption types;
      more.options = {
        system.stateVersion = mkOption { type = types.str; };
        services.openssh.enable = mkOption { type = types.bool; default = false; };
      };
      nixosSystem = { system, modules }:
        let
          stubs = stubsOf system;
          evaluated = lib.evalModules {
            modules = [ { inherit (stubs.nixos) options; } more ] ++ modules;
            specialArgs = { inherit (stubs) pkgs; };
          };
          inherit (evaluated) config;
          # Units of ours need systemd; the look-alike runs the others itself, scripts by their text.
          unitOf = name: let start = config.systemd.services.${name}.serviceConfig.ExecStart; in {
            name = "${name}.service";
            exec = start.text or "exec ${start}\n";
          };
          isOurs = name: builtins.match "nixdeploy.*" name != null;
          units = map unitOf (builtins.filter (name: !isOurs name) (builtins.attrNames config.systemd.services));
          # A path that depends on the configuration, and what it names can be switched to: test/fixtures/nix/system.nix.
          toplevel = import ./test/fixtures/nix/system.nix {
            options = builtins.toJSON {
              inherit units;
              name = config.networking.hostName;
              version = builtins.substring 0 8 (builtins.hashString "sha256" (builtins.toJSON config.systemd.services));
            };
          };
        in
        {
          _type = "configuration";
          class = "nixos";
          inherit (evaluated) options;
          config = config // { system.build = { inherit toplevel; }; };
        };
    in
    {
      lib = lib // { inherit nixosSystem; };
      legacyPackages = lib.genAttrs systems (system: (stubsOf system).pkgs // {
        nixos = module: nixosSystem { inherit system; modules = [ module ]; };
      });
    };
}
