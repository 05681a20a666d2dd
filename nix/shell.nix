# `nix develop`: the pinned Bun, and what the tests run. `npm test` needs Debian's packages for most of them.
{ mkShell, nodejs, nix, callPackage }:
mkShell {
  packages = [ (callPackage ./bun.nix { }) nodejs nix ];
}
