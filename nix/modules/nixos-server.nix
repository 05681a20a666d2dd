# NixOS: `services.nixdeploy-server`, the coordinator; and in front of it, by one option, nginx or Caddy.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkDefault mkIf mkOption types;
  unitText = import ./unit-text.nix;
  cfg = config.services.nixdeploy-server;
  fileName = types.strMatching "/.*" // { description = "absolute path, as text"; };

  # https://HOST[:PORT][/PATH]
  parts = builtins.match "(https?)://([^/:?#@]+)(:[0-9]+)?(/[^?#]*)?" (if cfg.publicUrl == null then "" else cfg.publicUrl);
  # Names of attributes are looked at even where a condition leaves them out.
  host = if parts == null then "unknown" else builtins.elemAt parts 1;
  path = let given = if parts == null then null else builtins.elemAt parts 3; in if given == null then "" else lib.removeSuffix "/" given;
  listenAt = builtins.match "(.*):0*([0-9]+)" cfg.listen;
  listenPort = lib.toInt (builtins.elemAt listenAt 1);
  address = builtins.head listenAt;
  isEverywhere = builtins.elem address [ "0.0.0.0" "[::]" ];
  # Its network need not be there for any other; the agents of this host need it soon after a reboot that is tried.
  waitsForNetwork = !isEverywhere && !(builtins.elem address [ "127.0.0.1" "[::1]" "localhost" ]);
  network = [ "network.target" ] ++ lib.optional waitsForNetwork "network-online.target";
  # Where the proxy finds it.
  upstream = "${if isEverywhere then "127.0.0.1" else address}:${toString listenPort}";

  arguments =
    [ "serve" "--listen" cfg.listen "--data-dir" "/var/lib/nixdeploy/server" ]
    ++ lib.optionals (cfg.publicUrl != null) [ "--public-url" cfg.publicUrl ]
    ++ lib.optionals (cfg.tls.certificateFile != null) [ "--tls-cert" cfg.tls.certificateFile ]
    ++ lib.optionals (cfg.tls.keyFile != null) [ "--tls-key" cfg.tls.keyFile ]
    ++ lib.optionals (cfg.keepAudit != null) [ "--keep-audit" cfg.keepAudit ]
    ++ lib.concatMap (proxy: [ "--trusted-proxy" proxy ]) cfg.trustedProxies;
  needsLowPort = listenPort > 0 && listenPort < 1024;

  # What docs/nginx.md says; Upgrade, Connection and HTTP 1.1 are `proxyWebsockets`.
  nginxLocation = ''
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    client_max_body_size 32m;
    proxy_request_buffering off;
    proxy_buffering off;
  '';
  # What docs/caddy.md says.
  caddyProxy = "reverse_proxy ${upstream} {\n  flush_interval -1\n}\n";
in
{
  _file = "nixdeploy/nix/modules/nixos-server.nix";
  key = "nixdeploy/nixos-server";

  options.services.nixdeploy-server = {
    enable = lib.mkEnableOption "the nixdeploy coordinator";
    publicUrl = mkOption {
      type = types.nullOr (types.strMatching "https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?");
      default = null;
      example = "https://deploy.example.org";
      description = "The URL that agents and CI reach it by.";
    };
    listen = mkOption {
      type = types.strMatching "[^:[:space:]]+:[0-9]{1,5}|\\[[^][:space:]]+]:[0-9]{1,5}";
      default = "127.0.0.1:8470";
      description = "Address and port.";
    };
    reverseProxy = mkOption {
      type = types.nullOr (types.enum [ "nginx" "caddy" ]);
      default = null;
      description = ''
        Puts this web server in front of it, for the host and path of `publicUrl`. nginx gets a certificate by ACME
        (security.acme needs your e-mail and that you accept its terms), unless the virtual host says otherwise; Caddy
        does that by itself.
      '';
    };
    tls.certificateFile = mkOption {
      type = types.nullOr fileName;
      default = null;
      description = "PEM file with the certificate chain, for TLS without a proxy; read again when it changes.";
    };
    tls.keyFile = mkOption {
      type = types.nullOr fileName;
      default = null;
      description = "PEM file with its key.";
    };
    tls.group = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "acme";
      description = "The group that may read both files.";
    };
    keepAudit = mkOption {
      type = types.nullOr (types.strMatching "([0-9]+[dhms])+");
      default = null;
      example = "400d";
      description = "How long the audit log keeps a line.";
    };
    trustedProxies = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "10.0.0.0/8" ];
      description = "Proxies whose X-Forwarded-For says where a request comes from; those of this host when empty.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Opens the port of `listen`, or 80 and 443 with a reverse proxy.";
    };
    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Environment variables, such as HTTPS_PROXY.";
    };
    package = mkOption {
      type = types.package;
      default = pkgs.nixdeploy or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.nixdeploy";
      description = "The program.";
    };
  };

  config = mkIf cfg.enable (lib.mkMerge [
    {
      assertions = [
        {
          assertion = (cfg.tls.certificateFile == null) == (cfg.tls.keyFile == null);
          message = "services.nixdeploy-server: tls.certificateFile and tls.keyFile go together";
        }
        {
          # Both serve a name on 443, and get a certificate for it.
          assertion = cfg.reverseProxy == null || (parts != null && builtins.head parts == "https" && builtins.elemAt parts 2 == null);
          message = "services.nixdeploy-server: reverseProxy needs publicUrl with https and without a port, such as https://deploy.example.org";
        }
        {
          assertion = cfg.reverseProxy == null || cfg.tls.certificateFile == null;
          message = "services.nixdeploy-server: with reverseProxy, the proxy speaks TLS; leave tls out";
        }
      ];
      # So that `nixdeploy token create` works on this host.
      environment.systemPackages = [ cfg.package ];
      networking.firewall.allowedTCPPorts =
        mkIf cfg.openFirewall (if cfg.reverseProxy == null then [ listenPort ] else [ 80 443 ]);
      systemd.services.nixdeploy = {
        description = "nixdeploy coordinator";
        wantedBy = [ "multi-user.target" ];
        wants = lib.optional waitsForNetwork "network-online.target";
        after = network;
        environment = unitText.environment cfg.environment;
        serviceConfig = {
          Type = "notify";
          ExecStart = unitText.command ([ "${cfg.package}/bin/nixdeploy" ] ++ arguments);
          DynamicUser = true;
          StateDirectory = "nixdeploy/server";
          StateDirectoryMode = "0700";
          WatchdogSec = 60;
          Restart = "on-failure";
          RestartSec = 5;
          LimitNOFILE = 65536;
          CapabilityBoundingSet = if needsLowPort then [ "CAP_NET_BIND_SERVICE" ] else "";
          LockPersonality = true;
          PrivateDevices = true;
          ProtectClock = true;
          ProtectControlGroups = true;
          ProtectHome = true;
          ProtectHostname = true;
          ProtectKernelLogs = true;
          ProtectKernelModules = true;
          ProtectKernelTunables = true;
          ProtectProc = "invisible";
          RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
          RestrictNamespaces = true;
          RestrictRealtime = true;
          SystemCallArchitectures = "native";
          SystemCallFilter = [ "@system-service" ];
          UMask = "0077";
        }
        // lib.optionalAttrs needsLowPort { AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ]; }
        // lib.optionalAttrs (cfg.tls.group != null) { SupplementaryGroups = [ cfg.tls.group ]; };
      };
    }
    (mkIf (cfg.reverseProxy == "nginx") {
      services.nginx.enable = true;
      services.nginx.virtualHosts.${host} = {
        forceSSL = mkDefault true;
        enableACME = mkDefault true;
        locations."${path}/" = {
          # The slash at the end takes the path off: the coordinator knows nothing of it.
          proxyPass = "http://${upstream}/";
          proxyWebsockets = true;
          recommendedProxySettings = false;
          extraConfig = nginxLocation;
        };
      };
    })
    (mkIf (cfg.reverseProxy == "caddy") {
      services.caddy.enable = true;
      services.caddy.virtualHosts.${host}.extraConfig =
        if path == "" then caddyProxy else "handle_path ${path}/* {\n${caddyProxy}}\n";
    })
  ]);
}
