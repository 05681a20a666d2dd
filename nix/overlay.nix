# Adds `pkgs.nixdeploy`.
final: previous: { nixdeploy = final.callPackage ./package.nix { }; }
