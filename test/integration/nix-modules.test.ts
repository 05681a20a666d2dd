/**
 * The modules of nix/modules, by real Nix: what NixOS is told, and what is refused at evaluation. With $NIXPKGS_LIB, also by
 * nixpkgs' own `lib`, with the same results. (What becomes of it is in nix-rendered.test.ts, and the units run in
 * test/e2e/own-host.test.ts.)
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readGuideFile } from "../support/install-guide.ts";
import { type Evaluation, evaluationOf, NIX_LIBS } from "../support/nix-modules.ts";
import { ensureNixOf, NIX_SUITES, type NixSuite } from "../support/nix-versions.ts";
import { runProcess } from "../support/processes.ts";

const bins = new Map<NixSuite, string>();
beforeAll(async () => {
  for (const suite of NIX_SUITES) bins.set(suite, (await ensureNixOf(suite)).binDirectory);
}, 300_000);

async function run(evaluation: Evaluation, suite: NixSuite = "trixie") {
  const env = { NIX_REMOTE: "dummy://", PATH: `${bins.get(suite)}:/usr/bin:/bin` };
  return await runProcess(evaluationOf(evaluation), { env });
}

async function configure(modules: string, more: Omit<Evaluation, "modules"> = {}, suite?: NixSuite): Promise<unknown> {
  const { exitCode, stdout, stderr } = await run({ modules, ...more }, suite);
  if (exitCode !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const URL = "https://deploy.example.org";
const AGENT = `{ services.nixdeploy-agent = { enable = true; url = "${URL}"; }; }`;
const KEY = Buffer.alloc(32).toString("base64");
const EVERYTHING = `[ ({ lib, ... }: {
  services.nixdeploy-agent = {
    enable = true;
    name = "nuc-1.lan";
    url = "${URL}/deploy";
    tokenFile = "/run/secrets/token";
    trustedPublicKeys = [ "default-1:${KEY}" "default-2:${KEY}" ];
    labels = { role = "web"; rack = "a/1:2"; };
    confirmWindow = lib.mkForce "5m";
    environment.HTTPS_PROXY = "http://proxy:3128";
    agents.tools = { profile = "tools"; environment.NO_PROXY = "*"; };
    agents.other = {
      profile = "/home/me/profiles/other";
      stateDirectory = "/srv/other";
      tokenFile = null;
      healthChecks = [ { name = "up"; kind = "command"; command = [ "/run/current-system/sw/bin/true" ]; } ];
    };
  };
  boot.loader.grub.enable = true;
}) { services.nixdeploy-agent = { labels.ring = "2"; confirmWindow = "1m"; }; } ]`;

const unitSchema = z.looseObject({
  path: z.array(z.string()),
  environment: z.record(z.string(), z.string()),
  restartIfChanged: z.boolean(),
  stopIfChanged: z.boolean(),
  unitConfig: z.record(z.string(), z.unknown()),
  serviceConfig: z.looseObject({ ExecStart: z.string() }),
});
const configSchema = z.looseObject({
  systemd: z.looseObject({ services: z.record(z.string(), unitSchema) }),
  services: z.looseObject({ nginx: z.unknown(), caddy: z.unknown() }),
});

async function services(modules: string) {
  return configSchema.parse(await configure(modules)).systemd.services;
}

describe("agents of a NixOS system", () => {
  test("one: its unit, and the one that goes back", async () => {
    const units = await services(`[ ${AGENT} ]`);
    expect(Object.keys(units)).toEqual(["nixdeploy-agent-nuc", "nixdeploy-undo-nuc"]);
    expect(units["nixdeploy-undo-nuc"]).toMatchObject({
      ...{ restartIfChanged: false, stopIfChanged: false, unitConfig: { "X-StopOnRemoval": false } },
      serviceConfig: {
        Type: "exec",
        ExecStart: '"/usr/local/bin/nixdeploy" "supervise" "--state-dir" "/var/lib/nixdeploy/agents/nuc"',
      },
    });
    expect(JSON.stringify(units["nixdeploy-undo-nuc"])).not.toContain("network");
  });

  test("neither waits until the network is up, on which the proof after a reboot would wait, too", async () => {
    const units = await services(`[ ${AGENT} { services.nixdeploy-server.enable = true; } ]`);
    expect(Object.keys(units)).toContain("nixdeploy");
    expect(JSON.stringify(units)).not.toContain("network-online");
    for (const name of ["nixdeploy", "nixdeploy-agent"]) {
      expect(await readGuideFile(`/etc/systemd/system/${name}.service`)).not.toContain("network-online");
    }
  });

  test("several, with all that can be said of them", async () => {
    const units = await services(EVERYTHING);
    expect(Object.keys(units)).toEqual([
      ...["nixdeploy-agent-nuc-1.lan", "nixdeploy-agent-other", "nixdeploy-agent-tools"],
      "nixdeploy-undo-nuc-1.lan",
    ]);
    const words = (name: string) => units[name]?.serviceConfig.ExecStart.split(" ").slice(1).join(" ");
    expect(words("nixdeploy-agent-nuc-1.lan")).toBe(
      '"agent" "--name" "nuc-1.lan" "--state-dir" "/var/lib/nixdeploy/agents/nuc-1.lan" ' +
        `"--trusted-public-key" "default-1:${KEY}" "--trusted-public-key" "default-2:${KEY}" ` +
        '"--label" "rack=a/1:2" "--label" "ring=2" "--label" "role=web" "--confirm-window" "5m"',
    );
    expect(words("nixdeploy-agent-tools")).toStartWith(
      '"agent" "--name" "tools" "--profile" "tools" "--state-dir" "/var/lib/nixdeploy/agents/tools" "--trusted-public-key"',
    );
    expect(words("nixdeploy-agent-other")).toMatch(
      /"--state-dir" "\/srv\/other" .*"--health-checks" "\/nix\/store\/[a-z0-9]{32}-nixdeploy-health-checks.json"$/,
    );
    expect(units["nixdeploy-agent-nuc-1.lan"]).toMatchObject({
      path: ["/usr", "/grub2"],
      environment: { NIXDEPLOY_URL: `${URL}/deploy`, HTTPS_PROXY: "http://proxy:3128" },
      serviceConfig: {
        LoadCredential: ["nixdeploy-agent-token:/run/secrets/token"],
        StateDirectory: "nixdeploy/agents/nuc-1.lan",
        ...{ ReadWritePaths: ["/nix/var/nix"], ProtectHome: true },
      },
    });
    expect(units["nixdeploy-agent-tools"]?.environment).toEqual({ NIXDEPLOY_URL: `${URL}/deploy`, NO_PROXY: "*" });
    const { serviceConfig } = units["nixdeploy-agent-other"] ?? {};
    expect(serviceConfig).toMatchObject({
      ...{ ReadWritePaths: ["/nix/var/nix", "-/home/me/profiles", "-/srv/other"], ProtectHome: false },
    });
    expect(Object.keys(serviceConfig ?? {})).not.toContain("LoadCredential");
  });

  test("one whose profile is in root's home may write there", async () => {
    const units = await services(`[ ${AGENT} { services.nixdeploy-agent.profile = "/root/tools"; } ]`);
    expect(units["nixdeploy-agent-nuc"]?.serviceConfig).toMatchObject({
      ...{ ReadWritePaths: ["/nix/var/nix", "-/root"], ProtectHome: false },
    });
  });

  const bad: readonly (readonly [what: string, modules: string, said: string])[] = [
    ["no address", "[ { services.nixdeploy-agent.enable = true; } ]", "the agent nuc needs `url`"],
    ["a name with a space", `[ ${AGENT} { services.nixdeploy-agent.name = "a b"; } ]`, "services.nixdeploy-agent.name"],
    [
      "a token in the store",
      `[ ${AGENT} { services.nixdeploy-agent.tokenFile = "/nix/store/x"; } ]`,
      "is in the store",
    ],
    ["a token as a path", `[ ${AGENT} { services.nixdeploy-agent.tokenFile = /etc/token; } ]`, "tokenFile"],
    [
      "two of one profile",
      `[ ${AGENT} { services.nixdeploy-agent.agents.a = { }; } ]`,
      "the same profile: /nix/var/nix/profiles/system, /nix/var/nix/profiles/system",
    ],
    [
      "two of one profile, by its name and by its path",
      `[ ${AGENT} { services.nixdeploy-agent.profile = "a"; services.nixdeploy-agent.agents.a.profile = "/nix/var/nix/profiles/a"; } ]`,
      "the same profile",
    ],
    ["a system without a name", `[ ${AGENT} { networking.hostName = ""; } ]`, "no networking.hostName, so say what"],
    ["a label with a space", `[ ${AGENT} { services.nixdeploy-agent.labels.a = "b c"; } ]`, "labels.a"],
    ["a label's key with a space", `[ ${AGENT} { services.nixdeploy-agent.labels."a b" = "c"; } ]`, "the form of a b"],
    [
      "a key that is none",
      `[ ${AGENT} { services.nixdeploy-agent.trustedPublicKeys = [ "a:AAAA" ]; } ]`,
      "trustedPublicKeys",
    ],
    ["a profile that is none", `[ ${AGENT} { services.nixdeploy-agent.profile = "a/b"; } ]`, "profile"],
    [
      "a folder with a space",
      `[ ${AGENT} { services.nixdeploy-agent.stateDirectory = "/srv/a b"; } ]`,
      "stateDirectory",
    ],
    ["a window too long", `[ ${AGENT} { services.nixdeploy-agent.confirmWindow = "61m"; } ]`, "from 1s to 1h"],
    ["no window at all", `[ ${AGENT} { services.nixdeploy-agent.confirmWindow = "0s"; } ]`, "from 1s to 1h"],
    [
      "two of one name",
      `[ ${AGENT} { services.nixdeploy-agent.agents.a = { name = "nuc"; profile = "a"; }; } ]`,
      "the same name: nuc, nuc",
    ],
    [
      "a misspelt health check",
      `[ ${AGENT} { services.nixdeploy-agent.healthChecks = [ { name = "a"; kind = "tcp"; prot = 1; } ]; } ]`,
      "prot is not known here",
    ],
    ["a misspelt option", `[ ${AGENT} { services.nixdeploy-agent.tokenfile = "/x"; } ]`, "does not exist"],
    ["a window without a unit", `[ ${AGENT} { services.nixdeploy-agent.confirmWindow = "60"; } ]`, "confirmWindow"],
  ];
  for (const { name, path } of NIX_LIBS) {
    for (const [what, modules, said] of bad) {
      test(`${what} is refused (${name})`, async () => {
        const { exitCode, stderr } = await run({ modules, libPath: path });
        expect(exitCode).toBe(1);
        expect(stderr).toContain(said);
      });
    }
  }
});

describe("the documented unit files and the modules say the same", () => {
  const read = async (name: string) => {
    const directory = `/etc/systemd/system/${name}.service`;
    return `${await readGuideFile(directory)}\n${await readGuideFile(`${directory}.d/hardening.conf`)}`;
  };
  /** Key → sorted values of [Service], without what only one of them needs. */
  const settingsOf = (lines: readonly (readonly [key: string, value: string])[], without: readonly string[]) => {
    const known = new Map<string, string[]>();
    for (const [key, value] of lines) {
      if (!without.includes(key)) known.set(key, [...(known.get(key) ?? []), ...value.split(" ")].sort());
    }
    return Object.fromEntries([...known].sort(([left], [right]) => (left < right ? -1 : 1)));
  };
  const fromFile = (text: string) =>
    text
      .split(/^\[/m)
      .filter((section) => section.startsWith("Service]"))
      .flatMap((section) => section.split("\n").slice(1))
      .flatMap((line) => {
        const [, key, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
        return key === undefined || value === undefined ? [] : [[key, value] as const];
      });
  const fromModule = (config: Readonly<Record<string, unknown>>) =>
    Object.entries(config).flatMap(([key, value]) =>
      (Array.isArray(value) ? value : [value]).map((one) => {
        return [key, one === true ? "yes" : one === false ? "no" : String(one)] as const;
      }),
    );

  test("of the coordinator", async () => {
    const units = await services(`[ { services.nixdeploy-server = { enable = true; publicUrl = "${URL}"; }; } ]`);
    const { ExecStart } = units["nixdeploy"]?.serviceConfig ?? { ExecStart: "" };
    expect(ExecStart).toEndWith(`"--public-url" "${URL}"`);
    expect(settingsOf(fromModule(units["nixdeploy"]?.serviceConfig ?? {}), ["ExecStart"])).toEqual(
      settingsOf(fromFile(await read("nixdeploy")), ["ExecStart"]),
    );
  });

  test("of an agent", async () => {
    const units = await services(`[ ${AGENT} { services.nixdeploy-agent.tokenFile = "/etc/nixdeploy/agent-token"; } ]`);
    // The module lets systemd make the state directory, which the file makes writable as it is.
    const without = ["ExecStart", "Environment", "ReadWritePaths", "StateDirectory", "StateDirectoryMode"];
    expect(settingsOf(fromModule(units["nixdeploy-agent-nuc"]?.serviceConfig ?? {}), without)).toEqual(
      settingsOf(fromFile(await read("nixdeploy-agent")), without),
    );
  });
});

describe("the coordinator behind a web server", () => {
  const server = (more: string) => `[ { services.nixdeploy-server = { enable = true; ${more} }; } ]`;

  test("nginx gets what docs/nginx.md says", async () => {
    const config = configSchema.parse(
      await configure(server(`publicUrl = "${URL}/deploy"; reverseProxy = "nginx"; openFirewall = true;`)),
    );
    expect(config).toMatchObject({
      networking: { firewall: { allowedTCPPorts: [80, 443] } },
      services: { nginx: { enable: true, virtualHosts: { "deploy.example.org": { forceSSL: true } } } },
    });
    const location = z
      .object({ proxyPass: z.string(), proxyWebsockets: z.literal(true), extraConfig: z.string() })
      .parse(
        z
          .looseObject({
            virtualHosts: z.record(z.string(), z.looseObject({ locations: z.record(z.string(), z.unknown()) })),
          })
          .parse(config.services.nginx).virtualHosts["deploy.example.org"]?.locations["/deploy/"],
      );
    const directives = (text: string) =>
      [...text.matchAll(/^\s*((?:proxy|client)_\w+ [^;]*);/gm)].map(([, one]) => one);
    // What NixOS writes for `proxyWebsockets`.
    const websockets = [
      ...["proxy_http_version 1.1", "proxy_set_header Upgrade $http_upgrade"],
      "proxy_set_header Connection $connection_upgrade",
    ];
    const documented = await readFile(join(import.meta.dir, "../../docs/nginx.md"), "utf8");
    expect(
      [`proxy_pass ${location.proxyPass}`, ...websockets, ...directives(location.extraConfig)].sort() as string[],
    ).toEqual(directives(documented).sort() as string[]);
  });

  test("Caddy gets what docs/caddy.md says, for a host of its own and below a path", async () => {
    const text = await readFile(join(import.meta.dir, "../../docs/caddy.md"), "utf8");
    const blocks = [...text.matchAll(/\n```caddy\n([^`]*)```/g)].map(([, block = ""]) => block);
    const lines = (block: string) =>
      block
        .split("\n")
        .map((line) => line.trim())
        .filter((line) => line !== "" && !line.startsWith("#"));
    const caddy = z.looseObject({
      enable: z.literal(true),
      virtualHosts: z.strictObject({ "deploy.example.org": z.strictObject({ extraConfig: z.string() }) }),
    });
    for (const [index, url] of [URL, `${URL}/deploy/`].entries()) {
      const config = configSchema.parse(await configure(server(`publicUrl = "${url}"; reverseProxy = "caddy";`)));
      const { extraConfig } = caddy.parse(config.services.caddy).virtualHosts["deploy.example.org"];
      expect(["deploy.example.org {", ...lines(extraConfig), "}"]).toEqual(lines(blocks[index] ?? ""));
    }
  });

  test("TLS of its own on port 443", async () => {
    const units = await services(
      server(`listen = "[::]:443"; tls = { certificateFile = "/a.pem"; keyFile = "/a.key"; group = "acme"; };`),
    );
    expect(units["nixdeploy"]?.serviceConfig).toMatchObject({
      ...{ AmbientCapabilities: ["CAP_NET_BIND_SERVICE"], CapabilityBoundingSet: ["CAP_NET_BIND_SERVICE"] },
      ...{ SupplementaryGroups: ["acme"] },
    });
    expect(units["nixdeploy"]?.serviceConfig.ExecStart).toContain('"--tls-cert" "/a.pem" "--tls-key" "/a.key"');
  });

  test("is found where it listens", async () => {
    const proxied = async (listen: string) => {
      const modules = server(`publicUrl = "${URL}"; reverseProxy = "nginx"; listen = "${listen}";`);
      return JSON.stringify(configSchema.parse(await configure(modules)).services.nginx);
    };
    expect(await proxied("10.0.0.5:8471")).toContain('"proxyPass":"http://10.0.0.5:8471/"');
    expect(await proxied("[::1]:8471")).toContain('"proxyPass":"http://[::1]:8471/"');
    expect(await proxied("[::]:8471")).toContain('"proxyPass":"http://127.0.0.1:8471/"');
  });

  const bad: readonly (readonly [what: string, more: string, said: string])[] = [
    ["a web server without a host", 'reverseProxy = "nginx";', "reverseProxy needs publicUrl"],
    ["a web server for a port of its own", `reverseProxy = "nginx"; publicUrl = "${URL}:8443";`, "without a port"],
    ["a web server without TLS", 'reverseProxy = "caddy"; publicUrl = "http://a.example";', "with https"],
    ["half of TLS", 'tls.keyFile = "/a.key";', "go together"],
    ["a web server that is none", 'reverseProxy = "apache";', "reverseProxy"],
    ["an address without a port", 'listen = "127.0.0.1";', "listen"],
  ];
  for (const [what, more, said] of bad) {
    test(`${what} is refused`, async () => {
      const { exitCode, stderr } = await run({ modules: server(more) });
      expect(exitCode).toBe(1);
      expect(stderr).toContain(said);
    });
  }
});

describe("every Nix and every lib make the same of it", () => {
  const server = `{ services.nixdeploy-server = { enable = true; publicUrl = "${URL}"; reverseProxy = "nginx"; }; }`;
  const cases: readonly Evaluation[] = [
    { modules: EVERYTHING },
    { modules: `[ ${AGENT} ${server} ]` },
    { modules: "[ ]" },
    { modules: `[ ${AGENT} { networking.hostName = "mac"; } ]`, kind: "darwin", platform: "darwin" },
    { modules: `[ ${AGENT} { services.nixdeploy-agent.name = "me"; } ]`, kind: "home" },
  ];
  for (const [index, evaluation] of cases.entries()) {
    test(`case ${index + 1}`, async () => {
      const wanted = await configure(evaluation.modules, evaluation);
      for (const suite of NIX_SUITES) {
        for (const { path } of NIX_LIBS) {
          expect(await configure(evaluation.modules, { ...evaluation, libPath: path }, suite)).toEqual(wanted);
        }
      }
    });
  }
});
