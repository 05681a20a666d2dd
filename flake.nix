{
  description = "Keeps fleets of Nix machines up to date: coordinator, binary cache and agent in one self-hosted executable";

  # Only `lib.darwin` and `lib.homeManager` need the last two.
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    darwin = {
      url = "github:nix-darwin/nix-darwin";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = { self, nixpkgs, darwin, home-manager }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forEach = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      # A function of pkgs, as cachix-deploy-flake has it.
      lib = import ./nix/lib { inherit darwin home-manager; };

      nixosModules = {
        agent = ./nix/modules/nixos-agent.nix;
        server = ./nix/modules/nixos-server.nix;
        default = { imports = [ ./nix/modules/nixos-agent.nix ./nix/modules/nixos-server.nix ]; };
      };
      darwinModules = rec {
        agent = ./nix/modules/darwin-agent.nix;
        default = agent;
      };
      homeModules = rec {
        agent = ./nix/modules/home-agent.nix;
        default = agent;
      };

      packages = forEach (pkgs: rec {
        nixdeploy = pkgs.callPackage ./nix/package.nix { };
        default = nixdeploy;
      });
      overlays.default = import ./nix/overlay.nix;
      devShells = forEach (pkgs: { default = pkgs.callPackage ./nix/shell.nix { }; });

      templates = rec {
        homelab = {
          path = ./nix/templates/homelab;
          description = "A coordinator, its machines, and GitHub Actions that deploy them";
        };
        default = homelab;
      };
    };
}
