# The configuration that modules make: nix-instantiate --eval --strict --json evaluate.nix --arg …
# An assertion that does not hold is an error, as in NixOS.
{ libPath ? ./lib.nix, kind ? "nixos", platform ? "linux", prefix ? "/usr/local", modules }:
let
  lib = import libPath;
  stubs = import ./stubs.nix { inherit lib platform prefix; };
  ours = import ./modules.nix;
  inherit (lib.evalModules {
    modules = [ { inherit (stubs.${kind}) options; } ] ++ ours.${kind} ++ modules;
    specialArgs = { inherit (stubs) pkgs; };
  }) config;
  failed = builtins.filter (one: !one.assertion) config.assertions;
in
if failed != [ ] then throw "Failed assertions:\n${builtins.concatStringsSep "\n" (map (one: "- ${one.message}") failed)}"
else removeAttrs config [ "assertions" ] // {
  rendered = stubs.${kind}.render config;
  services = removeAttrs (config.services or { }) [ "nixdeploy-agent" "nixdeploy-server" ];
}
