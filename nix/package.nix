# nixdeploy from source. The binary is Bun with the program at its end: stripping it would leave a bare Bun.
{ lib, stdenv, callPackage, dependencies ? callPackage ./dependencies.nix { }, bun ? callPackage ./bun.nix { inherit dependencies; } }:
let
  root = toString ../.;
  parts = [ "src" "build.ts" "package.json" "tsconfig.json" "bunfig.toml" ];
in
stdenv.mkDerivation {
  pname = "nixdeploy";
  inherit (builtins.fromJSON (builtins.readFile ../package.json)) version;
  src = builtins.path {
    path = ../.;
    name = "nixdeploy-source";
    filter = path: type: builtins.elem (builtins.head (lib.splitString "/" (lib.removePrefix "${root}/" path))) parts;
  };
  dontConfigure = true;
  buildPhase = ''
    runHook preBuild
    export HOME=$TMPDIR
    ln -s ${dependencies}/node_modules node_modules
    ${bun}/bin/bun build.ts --outfile nixdeploy
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    mkdir -p $out/bin
    cp nixdeploy $out/bin/nixdeploy
    chmod 755 $out/bin/nixdeploy
    runHook postInstall
  '';
  dontStrip = true;
  dontPatchELF = true;
  passthru = { inherit dependencies bun; };
  meta = {
    description = "Keeps fleets of Nix machines up to date: coordinator, binary cache and agent in one executable";
    license = lib.licenses.asl20;
    mainProgram = "nixdeploy";
    platforms = builtins.attrNames (builtins.fromJSON (builtins.readFile ./dependencies.json));
  };
}
