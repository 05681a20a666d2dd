# What the agents of NixOS, nix-darwin and Home Manager have in common: `services.nixdeploy-agent`, what is checked of it at
# evaluation, and the words and variables of each agent. Only the public `lib` of nixpkgs is used. What the program would
# refuse at its start is refused here, because a system whose agent does not start is one that goes back.
{ config, lib, pkgs, owner }:
let
  inherit (lib) mkOption types;
  checks = import ../lib/health-checks.nix;
  cfg = config.services.nixdeploy-agent;

  # Whose profile it is by default: the machine's, or a user's.
  place = {
    system = {
      what = "this system";
      root = "/var/lib/nixdeploy/agents";
      profiles = "/nix/var/nix/profiles";
      profile = "system";
      # nix-darwin's is null, NixOS' may be empty.
      name.default =
        let inherit (config.networking) hostName; in
        if hostName != null && hostName != "" then hostName
        else throw "nixdeploy: this machine has no networking.hostName, so say what its agent is called: services.nixdeploy-agent.name";
      name.defaultText = lib.literalExpression "config.networking.hostName";
    };
    home = {
      what = "this home";
      root = "${config.xdg.stateHome}/nixdeploy/agents";
      profiles = "${config.xdg.stateHome}/nix/profiles";
      profile = "home-manager";
      name = { };
    };
  }.${owner};

  described = description: type: type // { inherit description; };
  # Units name them, too, where white space ends a word.
  plainPath = "(/[A-Za-z0-9._+@:=-]+)+";
  fileName = described "absolute path, as text, of A-Z a-z 0-9 . _ + @ : = -" (types.strMatching plainPath);
  agentName = described "name of 1 to 64 of A-Z a-z 0-9 . _ -, the first no sign" (types.strMatching "[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
  profile = described "name of a profile, or its absolute path" (types.strMatching "[A-Za-z0-9][A-Za-z0-9._-]{0,63}|${plainPath}");
  publicKey = described "public key, NAME:BASE64" (types.strMatching "[^:[:space:]]+:[A-Za-z0-9+/]{43}=");
  labelKey = "[A-Za-z0-9][A-Za-z0-9._/-]{0,62}";
  labelValue = described "value of a label, 1 to 128 of A-Z a-z 0-9 . _ / : @ + -, the first no sign" (types.strMatching "[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,127}");

  # `defaults`: of the machine's first agent, for its further ones.
  optionsOf = { name, defaults ? { }, stateDirectory }: {
    name = mkOption {
      type = agentName;
      description = "The name of this agent in its workspace.";
    } // name;
    url = mkOption {
      type = types.nullOr (types.strMatching "https?://[^?#@[:space:]]+");
      default = defaults.url or null;
      example = "https://deploy.example.org";
      description = "The address of the coordinator.";
    };
    profile = mkOption {
      type = types.nullOr profile;
      default = null;
      example = "tools";
      description = "The profile it keeps, a name or an absolute path. null: the system, or Home Manager's for a user.";
    };
    tokenFile = mkOption {
      type = types.nullOr fileName;
      default = defaults.tokenFile or null;
      example = "/run/secrets/nixdeploy-agent-token";
      description = ''
        A file with the agent token of the first contact, outside the store. An agent that was admitted does not need it
        any more: it may be gone then. (The key by which an agent proves itself from then on is made on the machine, in
        the state directory, and comes from nowhere else.)
      '';
    };
    labels = mkOption {
      type = types.attrsOf labelValue;
      default = { };
      example = { role = "web"; };
      description = "Labels to select it by.";
    };
    trustedPublicKeys = mkOption {
      type = types.listOf publicKey;
      default = defaults.trustedPublicKeys or [ ];
      example = [ "default-1:…" ];
      description = "Keys that closures may be signed with. Empty: those that it is told of at the first contact are pinned.";
    };
    confirmWindow = mkOption {
      type = types.nullOr (types.strMatching "[0-9]+(s|m|h)");
      default = defaults.confirmWindow or null;
      example = "5m";
      description = "How long a new version may take to prove itself, when neither the rollout nor the workspace says so: 1s to 1h.";
    };
    healthChecks = mkOption {
      type = types.listOf (types.attrsOf types.anything);
      default = [ ];
      example = [ { name = "ssh"; kind = "tcp"; port = 22; } ];
      description = "Health checks of this device, besides those of each deployment. A command may be any program here.";
    };
    stateDirectory = mkOption {
      type = fileName;
      description = "Where its key and its journals are kept.";
    } // stateDirectory;
    environment = mkOption {
      type = types.attrsOf types.str;
      default = defaults.environment or { };
      example = { HTTPS_PROXY = "http://proxy.example.org:3128"; };
      description = "Environment variables of the agent, such as proxies and NIX_SSL_CERT_FILE. They are in the store, which everybody can read: no place for passwords.";
    };
    package = mkOption {
      type = types.package;
      default = defaults.package or (pkgs.nixdeploy or (pkgs.callPackage ../package.nix { }));
      defaultText = lib.literalExpression "pkgs.nixdeploy";
      description = "The program.";
    };
  };

  agents = lib.optional cfg.enable cfg ++ builtins.attrValues cfg.agents;
  profilePathOf = agent:
    let name = if agent.profile == null then place.profile else agent.profile; in
    if lib.hasPrefix "/" name then name else "${place.profiles}/${name}";
  healthChecksFile = agent:
    pkgs.writeText "nixdeploy-health-checks.json" (builtins.toJSON { inherit (agent) healthChecks; });

  twice = what: values: {
    assertion = lib.unique values == values;
    message = "nixdeploy: two agents of this machine have the same ${what}: ${lib.concatStringsSep ", " values}";
  };
  windowSeconds = text:
    let
      parts = builtins.match "0*([0-9]{1,6})([smh])" text;
      unit = { s = 1; m = 60; h = 3600; }.${builtins.elemAt parts 1};
    in
    if parts == null then 0 else lib.toInt (builtins.elemAt parts 0) * unit;
  assertionsOf = agent:
    let
      said = why: "nixdeploy: the agent ${agent.name}${why}";
      faults = checks.faultsOf { at = "healthChecks"; mayRunAnything = true; } agent.healthChecks;
      badLabels = builtins.filter (key: builtins.match labelKey key == null) (builtins.attrNames agent.labels);
      window = windowSeconds agent.confirmWindow;
    in
    [
      { assertion = agent.url != null; message = said " needs `url`, the address of its coordinator"; }
      {
        assertion = agent.tokenFile == null || !(lib.hasPrefix "/nix/store/" agent.tokenFile);
        message = said ": tokenFile is in the store, which everybody can read";
      }
      {
        assertion = badLabels == [ ];
        message = said ": no key of a label has the form of ${lib.concatStringsSep ", " badLabels} (1 to 63 of A-Z a-z 0-9 . _ / -, the first no sign)";
      }
      {
        assertion = agent.confirmWindow == null || (window >= 1 && window <= 3600);
        message = said ": confirmWindow must be from 1s to 1h";
      }
      { assertion = faults == [ ]; message = said ": ${lib.concatStringsSep "; " faults}"; }
    ];
in
{
  inherit agents cfg profilePathOf;

  options = {
    enable = lib.mkEnableOption "the nixdeploy agent of ${place.what}";
    agents = mkOption {
      default = { };
      example = { tools = { profile = "tools"; }; };
      description = ''
        Further agents, by name, each with a profile of its own. What they do not say about url, tokenFile,
        trustedPublicKeys, confirmWindow, environment and package, the first one's options say.
      '';
      type = types.attrsOf (types.submodule ({ name, config, ... }: {
        options = optionsOf {
          name = { default = name; };
          stateDirectory = { default = "${place.root}/${config.name}"; };
          defaults = cfg;
        };
      }));
    };
  }
  // optionsOf { inherit (place) name; stateDirectory = { default = "${place.root}/${cfg.name}"; }; };

  # The program and its words.
  command = agent:
    [ "${agent.package}/bin/nixdeploy" "agent" "--name" agent.name ]
    ++ lib.optionals (agent.profile != null) [ "--profile" agent.profile ]
    ++ [ "--state-dir" agent.stateDirectory ]
    ++ lib.concatMap (key: [ "--trusted-public-key" key ]) agent.trustedPublicKeys
    ++ lib.concatMap (key: [ "--label" "${key}=${agent.labels.${key}}" ]) (builtins.attrNames agent.labels)
    ++ lib.optionals (agent.confirmWindow != null) [ "--confirm-window" agent.confirmWindow ]
    ++ lib.optionals (agent.healthChecks != [ ]) [ "--health-checks" "${healthChecksFile agent}" ];

  # `namesTokenFile`: where no service manager hands over credentials, and the agent reads the file itself.
  environment = { namesTokenFile }: agent:
    { NIXDEPLOY_URL = agent.url; }
    // lib.optionalAttrs (namesTokenFile && agent.tokenFile != null) { NIXDEPLOY_AGENT_TOKEN_FILE = agent.tokenFile; }
    // agent.environment;

  # In the form of NixOS' `assertions`.
  assertions = [
    (twice "name" (map (agent: agent.name) agents))
    (twice "profile" (map profilePathOf agents))
    (twice "state directory" (map (agent: agent.stateDirectory) agents))
  ]
  ++ lib.concatMap assertionsOf agents;
}
