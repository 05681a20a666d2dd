# Our modules, by whose they are.
{
  nixos = [ ../../nix/modules/nixos-agent.nix ../../nix/modules/nixos-server.nix ];
  darwin = [ ../../nix/modules/darwin-agent.nix ];
  home = [ ../../nix/modules/home-agent.nix ];
}
