# A flake in the place of nixpkgs: `lib`, packages, and a `nixosSystem` that evaluates modules and builds a small file.
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
          units = builtins.attrNames evaluated.config.systemd.services;
        in
        {
          _type = "configuration";
          class = "nixos";
          inherit (evaluated) options;
          config = evaluated.config // {
            # A path that depends on the configuration, as a real one does; what is evaluated is not built.
            system.build.toplevel = builtins.toFile "nixos-system-${evaluated.config.networking.hostName}" (builtins.toJSON units);
          };
        };
    in
    {
      lib = lib // { inherit nixosSystem; };
      legacyPackages = lib.genAttrs systems (system: (stubsOf system).pkgs // {
        nixos = module: nixosSystem { inherit system; modules = [ module ]; };
      });
    };
}
