# A flake in the place of Home Manager.
{
  outputs = { self }: {
    lib.homeManagerConfiguration = { pkgs, extraSpecialArgs, modules }: {
      activationPackage = builtins.toFile "home-manager-generation" (toString (builtins.length modules));
    };
  };
}
