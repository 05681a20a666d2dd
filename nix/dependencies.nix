# Bun and the libraries, in one fixed-output derivation: npm downloads what bun.lock pins, from the registry it is
# configured with, and nothing of it is run. dependencies.json has the hash of the whole for each system
# (scripts/nix-dependencies.ts).
{ lib, stdenv, nodejs, cacert, system ? stdenv.hostPlatform.system }:
let
  hashes = builtins.fromJSON (builtins.readFile ./dependencies.json);
  files = [ "bun.lock" "scripts" "scripts/bun-package.mjs" "nix" "nix/dependencies.mjs" ];
  root = toString ../.;
in
stdenv.mkDerivation {
  name = "nixdeploy-dependencies";
  src = builtins.path {
    path = ../.;
    name = "nixdeploy-lock";
    filter = path: type: builtins.elem (lib.removePrefix "${root}/" path) files;
  };
  nativeBuildInputs = [ nodejs cacert ];
  dontConfigure = true;
  dontFixup = true;
  buildPhase = ''
    runHook preBuild
    export HOME=$TMPDIR
    node nix/dependencies.mjs ${system} "$out"
    runHook postBuild
  '';
  dontInstall = true;
  # The network as it is outside: proxies, and npm's own registry and cache.
  impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "npm_config_registry" "npm_config_cache" "npm_config_userconfig" ];
  outputHashMode = "recursive";
  outputHashAlgo = "sha256";
  outputHash = hashes.${system} or (throw "nixdeploy cannot be built for ${system}: Bun does not exist for it");
}
