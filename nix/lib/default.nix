# What a flake calls: `nixdeploy.lib pkgs`. Names and arguments are those of cachix-deploy-flake, so that its users
# change one input; `healthChecks`, and all that `spec` takes besides `agents` and `rollbackScript`, is ours.
#
# `darwin` and `home-manager` are flake inputs, which only `darwin` and `homeManager` need.
{ darwin ? null, home-manager ? null }:
pkgs:
let
  need = name: input: function:
    if input != null then input
    else throw "cannot make a ${function} of nixdeploy's lib: it was imported without the input `${name}`";
in
{
  # spec { agents = { NAME = CONFIGURATION | PACKAGE | STORE-PATH; }; … }: the file that `nixdeploy activate` takes.
  spec = import ./spec.nix { inherit pkgs; };

  # healthChecks.http { name = "web"; url = "http://localhost/"; }, also tcp, units, command and script.
  healthChecks = import ./health-check-helpers.nix { inherit pkgs; };

  # nixos MODULE: the toplevel of a NixOS system, which has the options of our agent. As with `pkgs.nixos`, a list will do.
  nixos = module:
    let modules = if builtins.isList module then module else [ module ]; in
    (pkgs.nixos { imports = modules ++ [ ../modules/nixos-agent.nix ]; }).config.system.build.toplevel;

  # darwin MODULE: a nix-darwin system.
  darwin = module:
    ((need "darwin" darwin "darwin").lib.darwinSystem {
      inherit pkgs;
      modules = [ module ../modules/darwin-agent.nix ];
    }).system;

  # homeManager { extraSpecialArgs ? { } } MODULE: a generation of Home Manager.
  homeManager = { extraSpecialArgs ? { } }: module:
    ((need "home-manager" home-manager "homeManager").lib.homeManagerConfiguration {
      inherit pkgs extraSpecialArgs;
      modules = [ module ../modules/home-agent.nix ];
    }).activationPackage;

  bootstrapNixOS = throw
    "cannot use bootstrapNixOS: nixdeploy does not partition disks; docs/provisioning.md does the same with nixos-anywhere and disko";
}
