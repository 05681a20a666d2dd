# The Bun that bun.lock pins, which runs where there is no /lib64/ld-linux…: a program that it compiles is a copy of it.
{ lib, stdenv, patchelf, callPackage, dependencies ? callPackage ./dependencies.nix { } }:
stdenv.mkDerivation {
  pname = "nixdeploy-bun";
  version = (builtins.fromJSON (builtins.readFile ../package.json)).devDependencies.bun;
  dontUnpack = true;
  nativeBuildInputs = lib.optional stdenv.hostPlatform.isLinux patchelf;
  installPhase = ''
    runHook preInstall
    mkdir -p $out/bin
    cp ${dependencies}/bin/bun $out/bin/bun
    chmod 755 $out/bin/bun
  '' + lib.optionalString stdenv.hostPlatform.isLinux ''
    patchelf --set-interpreter "$(cat $NIX_CC/nix-support/dynamic-linker)" $out/bin/bun
  '' + ''
    runHook postInstall
  '';
  # Nothing is to be taken away from it.
  dontStrip = true;
  dontPatchELF = true;
}
