# spec { … }: the deployment spec as a store path, whose closure is all that it names; so pushing it pushes everything.
#
#   spec {
#     agents = {
#       nuc = self.nixosConfigurations.nuc;          # also a darwinConfiguration or homeConfiguration, as it is
#       tools = pkgs.hello;                          # a package, or a store path as text
#     };
#     rollbackScript.x86_64-linux = pkgs.writeShellScript "check" "…";
#     nixdeploy = {                                  # as in the JSON, see docs/activation.md
#       healthChecks = [ … ];                        # of every agent
#       agents.nuc.healthChecks = [ … ];             # besides those, of this one
#     };
#   }
#
# Instead of `agents`, or beside it, whole outputs of a flake: `inherit (self) nixosConfigurations;`, where the names are
# those of the agents (and darwinConfigurations, homeConfigurations). All faults are told at once, at evaluation.
{ pkgs }:
let
  inherit (builtins)
    attrNames concatLists concatMap concatStringsSep elem filter isAttrs isString mapAttrs match toJSON typeOf
    unsafeDiscardStringContext;
  checks = import ./health-checks.nix;

  agentName = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}";
  systemName = "[a-z0-9_]+-[a-z0-9]+";
  storePath = "/nix/store/[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+_?=-][A-Za-z0-9+._?=-]{0,210}";
  flakeOutputs = [ "nixosConfigurations" "darwinConfigurations" "homeConfigurations" ];
  knownKeys = [ "agents" "rollbackScript" "nixdeploy" ] ++ flakeOutputs;

  hasForm = pattern: text: match pattern (unsafeDiscardStringContext text) != null;
  isDerivation = value: isAttrs value && value.type or null == "derivation";
  isConfiguration = value: isAttrs value && value ? config && value ? options;

  # What is deployed for a value: { path } or { fault }.
  resolve = value:
    if isAttrs value && value ? activationPackage then { path = "${value.activationPackage}"; }
    else if isConfiguration value then { path = "${value.config.system.build.toplevel}"; }
    else if isDerivation value then { path = "${value}"; }
    else if isString value then
      (if hasForm storePath value then { path = value; }
      else { fault = "${toJSON (unsafeDiscardStringContext value)} is no store path"; })
    else if isAttrs value && any isConfiguration value then
      { fault = "it is a set of configurations (${concatStringsSep ", " (attrNames value)}): say which one, or `inherit` them instead of `agents`"; }
    else if typeOf value == "path" then { fault = "it is a path of the source; build it first"; }
    else { fault = "it is ${checks.describe value}; expected a configuration, a package or a store path"; };
  any = test: set: builtins.any (name: test set.${name}) (attrNames set);

  setFault = at: value: if isAttrs value && !(isDerivation value) then [ ] else [ "${at} is ${checks.describe value} instead of a set" ];
  asSet = value: if isAttrs value then value else { };

  faultsOfPaths = { at, namePattern, nameFault }: set:
    concatMap
      (name:
        (if hasForm namePattern name then [ ] else [ "${at} → ${toJSON name}: ${nameFault}" ])
        ++ (let found = resolve set.${name}; in if found ? fault then [ "${at} → ${toJSON name}: ${found.fault}" ] else [ ]))
      (attrNames set);
  unknownFaults = at: known: set: map (key: "${at} → ${toJSON key} is not known to this version") (filter (key: !(elem key known)) (attrNames set));

  # The agent is the same machine's user or system: a unit that is not there is refused by the device itself.
  warningsOf = agents:
    concatMap
      (name:
        let
          value = agents.${name};
          services = value.config.systemd.services or { };
        in
        if isConfiguration value && (value.class or "nixos") == "nixos" && value.config ? systemd && !(services ? "nixdeploy-agent-${name}")
        then [ "agents → ${name}: the configuration has no unit nixdeploy-agent-${name}.service (services.nixdeploy-agent, with this name); unless its agent runs in another unit, the device will refuse it" ]
        else [ ])
      (attrNames agents);
in
opts:
let
  options = asSet opts;
  given = map (key: asSet (options.${key} or { })) ([ "agents" ] ++ flakeOutputs);
  agents = builtins.foldl' (all: more: all // more) { } given;
  names = concatMap attrNames given;
  twice = filter (name: builtins.length (filter (other: other == name) names) > 1) (attrNames agents);
  scripts = let value = options.rollbackScript or { }; in if value == null then { } else value;
  ours = options.nixdeploy or { };
  oursByAgent = asSet ((asSet ours).agents or { });
  forAll = (asSet ours).healthChecks or [ ];

  faultsOfOurs =
    unknownFaults "nixdeploy" [ "healthChecks" "agents" ] (asSet ours)
    ++ checks.faultsOf { at = "nixdeploy → healthChecks"; } forAll
    ++ setFault "nixdeploy → agents" ((asSet ours).agents or { })
    ++ concatMap
      (name:
        let
          at = "nixdeploy → agents → ${toJSON name}";
          own = oursByAgent.${name};
          list = (asSet own).healthChecks or [ ];
          isList = builtins.isList list && builtins.isList forAll;
        in
        (if agents ? ${name} then [ ] else [ "${at}: there is no such agent" ])
        ++ setFault at own
        ++ unknownFaults at [ "healthChecks" ] (asSet own)
        ++ checks.faultsOf { at = "${at} → healthChecks"; } list
        ++ (if isList && checks.clashesOf list == [ ] && checks.clashesOf forAll == [ ]
        then map (why: "${at}: with those for all, ${why}") (checks.clashesOf (forAll ++ list)) else [ ]))
      (attrNames oursByAgent);

  faults = concatLists [
    (setFault "the spec" opts)
    (unknownFaults "the spec" knownKeys options)
    (concatMap (key: setFault key (options.${key} or { })) ([ "agents" ] ++ flakeOutputs))
    (if agents == { } && isAttrs opts then [ "it names no agent" ] else [ ])
    (map (name: "${toJSON name} is named twice") twice)
    (faultsOfPaths { at = "agents"; namePattern = agentName; nameFault = "a name has 1 to 64 of A-Z a-z 0-9 . _ -, the first no sign; give it one under `agents`"; } agents)
    (setFault "rollbackScript" scripts)
    (faultsOfPaths { at = "rollbackScript"; namePattern = systemName; nameFault = "it is no system, such as x86_64-linux"; } (asSet scripts))
    (setFault "nixdeploy" ours)
    faultsOfOurs
  ];
  text = toJSON (
    { agents = mapAttrs (_: value: (resolve value).path) agents; }
    // (if scripts == { } then { } else { rollbackScript = mapAttrs (_: value: (resolve value).path) scripts; })
    // (if options ? nixdeploy then { nixdeploy = ours; } else { })
  );
  warn = message: value: builtins.trace "warning: nixdeploy spec: ${message}" value;
in
if faults != [ ] then
  throw "cannot make the deployment spec:\n${concatStringsSep "\n" (map (fault: "- ${fault}") faults)}"
else
  builtins.foldl' (spec: message: warn message spec) (pkgs.writeText "nixdeploy.json" text) (warningsOf agents)
