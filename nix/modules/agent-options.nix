# The options of one agent, the same for NixOS, nix-darwin and Home Manager; and what all three make of them. Only the
# public `lib` of nixpkgs is used.
{ lib, pkgs }:
let
  inherit (lib) mkOption types;
  checks = import ../lib/health-checks.nix;
  healthChecksFile = agent:
    pkgs.writeText "nixdeploy-health-checks.json" (builtins.toJSON { inherit (agent) healthChecks; });
  fileName = types.strMatching "/.*" // { description = "absolute path, as text"; };
  # `defaults`: of the machine's first agent, for its further ones.
  optionsOf = { name, defaults ? { }, stateDirectory }: {
    name = mkOption {
      type = types.strMatching "[A-Za-z0-9][A-Za-z0-9._-]{0,63}";
      description = "The name of this agent in its workspace.";
    } // name;
    url = mkOption {
      type = types.nullOr (types.strMatching "https?://[^?#@[:space:]]+");
      default = defaults.url or null;
      example = "https://deploy.example.org";
      description = "The address of the coordinator.";
    };
    profile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "tools";
      description = "The profile it keeps, a name or an absolute path. null: the system, or Home Manager's for a user.";
    };
    tokenFile = mkOption {
      type = types.nullOr fileName;
      default = defaults.tokenFile or null;
      example = "/run/secrets/nixdeploy-agent-token";
      description = ''
        A file with the agent token of the first contact, outside the store. It must be there at each start; set null once
        the agent is admitted and the file is gone.
      '';
    };
    labels = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { role = "web"; };
      description = "Labels to select it by.";
    };
    trustedPublicKeys = mkOption {
      type = types.listOf types.str;
      default = defaults.trustedPublicKeys or [ ];
      example = [ "default-1:…" ];
      description = "Keys that closures may be signed with. Empty: those that it is told of at the first contact are pinned.";
    };
    confirmWindow = mkOption {
      type = types.nullOr (types.strMatching "[0-9]+(s|m|h)");
      default = defaults.confirmWindow or null;
      example = "5m";
      description = "How long a new version may take to prove itself, when neither the rollout nor the workspace says so.";
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
      description = "Environment variables of the agent, such as proxies and NIX_SSL_CERT_FILE.";
    };
    package = mkOption {
      type = types.package;
      default = defaults.package or (pkgs.nixdeploy or (pkgs.callPackage ../package.nix { }));
      defaultText = lib.literalExpression "pkgs.nixdeploy";
      description = "The program.";
    };
  };
in
{
  # All of `services.nixdeploy-agent`: the first agent's, and `agents` for further ones. `root`: of state directories.
  options = { cfg, what, name, root }:
    {
      enable = lib.mkEnableOption "the nixdeploy agent of ${what}";
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
            stateDirectory = { default = "${root}/${config.name}"; };
            defaults = cfg;
          };
        }));
      };
    }
    // optionsOf { inherit name; stateDirectory = { default = "${root}/${cfg.name}"; }; };

  enabled = cfg: lib.optional cfg.enable cfg ++ builtins.attrValues cfg.agents;

  # The words after the program.
  arguments = agent:
    [ "agent" "--name" agent.name ]
    ++ lib.optionals (agent.profile != null) [ "--profile" agent.profile ]
    ++ [ "--state-dir" agent.stateDirectory ]
    ++ lib.concatMap (key: [ "--trusted-public-key" key ]) agent.trustedPublicKeys
    ++ lib.concatMap (key: [ "--label" "${key}=${agent.labels.${key}}" ]) (builtins.attrNames agent.labels)
    ++ lib.optionals (agent.confirmWindow != null) [ "--confirm-window" agent.confirmWindow ]
    ++ lib.optionals (agent.healthChecks != [ ]) [ "--health-checks" "${healthChecksFile agent}" ];

  environment = agent: { NIXDEPLOY_URL = agent.url; } // agent.environment;

  # Of all agents of a machine; in the form of NixOS' `assertions`.
  assertions = agents:
    let
      twice = what: values: {
        assertion = lib.unique values == values;
        message = "nixdeploy: two agents of this machine have the same ${what}: ${lib.concatStringsSep ", " values}";
      };
    in
    [
      (twice "name" (map (agent: agent.name) agents))
      (twice "profile" (map (agent: if agent.profile == null then "system" else agent.profile) agents))
      (twice "state directory" (map (agent: agent.stateDirectory) agents))
    ]
    ++ lib.concatMap
      (agent: [
        {
          assertion = agent.url != null;
          message = "nixdeploy: the agent ${agent.name} needs `url`, the address of its coordinator";
        }
        {
          assertion = agent.tokenFile == null || !(lib.hasPrefix "/nix/store/" agent.tokenFile);
          message = "nixdeploy: tokenFile of the agent ${agent.name} is in the store, which everybody can read";
        }
        (
          let faults = checks.faultsOf { at = "healthChecks"; mayRunAnything = true; } agent.healthChecks; in
          {
            assertion = faults == [ ];
            message = "nixdeploy: the agent ${agent.name}: ${lib.concatStringsSep "; " faults}";
          }
        )
      ])
      agents;
}
