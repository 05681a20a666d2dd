{
  description = "My machines";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.nixdeploy = {
    url = "github:OWNER/nixdeploy";
    inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { self, nixpkgs, nixdeploy }:
    let
      system = "x86_64-linux";
      machine = name: nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [
          nixdeploy.nixosModules.default
          ./machines/common.nix
          (./machines + "/${name}.nix")
          (./machines + "/${name}-hardware.nix")
        ];
      };
      deploy = nixdeploy.lib nixpkgs.legacyPackages.${system};
    in
    {
      nixosConfigurations = nixpkgs.lib.genAttrs [ "vps" "nuc" ] machine;

      # nix build .#spec && nixdeploy push ./result && nixdeploy activate ./result
      packages.${system}.spec = deploy.spec {
        inherit (self) nixosConfigurations;
        nixdeploy.healthChecks = [ (deploy.healthChecks.tcp { name = "ssh"; port = 22; }) ];
      };
    };
}
