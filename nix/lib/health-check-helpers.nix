# Health checks written as Nix: healthChecks.KIND { name = …; … } is the check of that kind, or an error that says what
# is wrong with it where it stands. docs/activation.md has the keys of each kind.
{ pkgs }:
let
  rules = import ./health-checks.nix;
  checked = check:
    let faults = rules.faultsOf { at = "healthChecks.${check.kind}"; } [ check ]; in
    if faults == [ ] then check
    else throw "cannot make a health check: ${builtins.concatStringsSep "; " faults}";
  ofKind = kind: settings: checked (settings // { inherit kind; });
  # A package stands for its main program.
  toProgram = first: if builtins.isAttrs first && first.type or null == "derivation" then pkgs.lib.getExe first else first;
in
{
  units = ofKind "units";
  tcp = ofKind "tcp";
  http = ofKind "http";

  # command { name = "smoke"; command = [ PACKAGE-OR-PROGRAM "--fast" ]; }
  command = settings:
    ofKind "command" (settings // (
      if builtins.isList (settings.command or null) && settings.command != [ ]
      then { command = [ (toProgram (builtins.head settings.command)) ] ++ builtins.tail settings.command; }
      else { }
    ));

  # script { name = "smoke"; text = "curl --fail localhost"; }: a shell script, which is good when it ends with 0.
  script = settings:
    ofKind "command" (removeAttrs settings [ "text" ] // {
      command = [ "${pkgs.writeShellScript "nixdeploy-health-check" (settings.text or (throw "cannot make a health check: healthChecks.script needs `text`"))}" ];
    });
}
