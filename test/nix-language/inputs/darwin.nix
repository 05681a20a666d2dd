# A flake in the place of nix-darwin.
{
  outputs = { self }: {
    lib.darwinSystem = { pkgs, modules }: { system = builtins.toFile "darwin-system" (toString (builtins.length modules)); };
  };
}
