/**
 * What NixOS, nix-darwin and Home Manager make of our modules: units for systemd, jobs for launchd. By the stand-in, and where
 * $NIXPKGS_LIB, $NIX_DARWIN and $HOME_MANAGER name real trees, by those as well, file by file the same.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { ensureDebianPackages } from "../support/debian.ts";
import { type Evaluation, type ModuleKind, REAL_SYSTEMS } from "../support/nix-modules.ts";
import { ensureNixOf } from "../support/nix-versions.ts";
import { runProcess } from "../support/processes.ts";
import { readServiceFile, renderersOf, type ServiceFiles } from "../support/rendered-modules.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const URL = "https://deploy.example.org";
const KEY = `default-1:${Buffer.alloc(32).toString("base64")}`;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  env = { PATH: `${(await ensureNixOf("trixie")).binDirectory}:/usr/bin:/bin` };
  await ensureDebianPackages(REAL_SYSTEMS.length > 0 ? ["systemd", "python3"] : ["systemd"]);
}, 300_000);

async function read(files: ServiceFiles): Promise<Readonly<Record<string, unknown>>> {
  const entries = Object.entries(files).map(async ([name, text]) => [name, await readServiceFile(text)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

const agent = (more: string) =>
  `{ services.nixdeploy-agent = { enable = true; name = "me"; url = "${URL}"; ${more} }; }`;
/** What the places in between may take for something of theirs. */
const AWKWARD = `environment = { HTTPS_PROXY = "http://u:p%40ss@proxy:3128"; NOTE = "50% of \\"$HOME\\" \\\\ it's & <b>"; };`;
const FULL = agent(`
  tokenFile = "/run/secrets/token"; profile = "tools"; trustedPublicKeys = [ "${KEY}" ]; confirmWindow = "5m";
  labels = { role = "web"; rack = "a/1:2"; }; ${AWKWARD}
  healthChecks = [ { name = "up"; kind = "command"; command = [ "/bin/true" ]; } ];
  agents.other = { profile = "other"; tokenFile = null; environment = { }; };
`);
const SERVER = `{ services.nixdeploy-server = { enable = true; publicUrl = "${URL}"; ${AWKWARD} }; }`;

type Case = Omit<Evaluation, "kind"> & { readonly kind: ModuleKind; readonly what: string; readonly wanted: object };
const WORDS = ["agent", "--name", "me", "--state-dir"];
const quoted = (words: readonly string[]) => words.map((word) => JSON.stringify(word)).join(" ");
const waiting = (words: readonly string[]) => ["/bin/sh", "-c", `/bin/wait4path /nix/store && exec ${words.join(" ")}`];
const HOME_PATH = "/home/me/.nix-profile/bin:/home/me/.local/state/nix/profile/bin";
const HOME_WORDS = ["/usr/local/bin/nixdeploy", ...WORDS, "/home/me/.local/state/nixdeploy/agents/me"];

const CASES: readonly Case[] = [
  {
    what: "an agent of a system, whose token may be gone, and the unit that goes back",
    kind: "nixos",
    modules: `[ ${agent(`tokenFile = "/etc/token"; ${AWKWARD}`)} ]`,
    wanted: {
      "nixdeploy-agent-me.service": {
        Unit: { After: ["network.target nix-daemon.socket"] },
        Service: {
          Environment: expect.arrayContaining(['"HTTPS_PROXY=http://u:p%%40ss@proxy:3128"', `"NIXDEPLOY_URL=${URL}"`]),
          ExecStart: [quoted(["/usr/local/bin/nixdeploy", ...WORDS, "/var/lib/nixdeploy/agents/me"])],
          ...{ LoadCredential: ["nixdeploy-agent-token:/etc/token"], SetCredential: ["nixdeploy-agent-token:\\n"] },
          ...{ "X-StopIfChanged": ["false"], Restart: ["always"], Type: ["notify"] },
        },
        Install: { WantedBy: ["multi-user.target"] },
      },
      "nixdeploy-undo-me.service": {
        Unit: { "X-StopOnRemoval": ["false"] },
        Service: { "X-RestartIfChanged": ["false"], "X-StopIfChanged": ["false"], Type: ["exec"] },
      },
    },
  },
  {
    what: "agents with all that can be said",
    kind: "nixos",
    modules: `[ ${FULL} { boot.loader.grub.enable = true; } ]`,
    wanted: {},
  },
  {
    what: "a coordinator",
    kind: "nixos",
    modules: `[ ${SERVER} ]`,
    wanted: { "nixdeploy.service": { Service: { DynamicUser: ["true"], CapabilityBoundingSet: [""] } } },
  },
  {
    what: "a coordinator at an address that its network must have first",
    kind: "nixos",
    modules: `[ ${SERVER} { services.nixdeploy-server.listen = "10.0.0.5:8470"; } ]`,
    wanted: {
      "nixdeploy.service": {
        Unit: { After: ["network.target network-online.target"], Wants: ["network-online.target"] },
      },
    },
  },
  {
    what: "a daemon of a Mac, which waits for the store, and has the label that the agent looks for",
    kind: "darwin",
    platform: "darwin",
    modules: `[ ${agent(`tokenFile = "/etc/token"; ${AWKWARD}`)} ]`,
    wanted: {
      "org.nixos.nixdeploy-agent-me.plist": {
        ...{ Label: "org.nixos.nixdeploy-agent-me", RunAtLoad: true, KeepAlive: true, AbandonProcessGroup: true },
        ProgramArguments: waiting(["/usr/local/bin/nixdeploy", ...WORDS, "/var/lib/nixdeploy/agents/me"]),
        EnvironmentVariables: {
          PATH: "/nix-package/bin:/usr/bin:/bin:/usr/sbin:/sbin",
          ...{ NIXDEPLOY_URL: URL, NIXDEPLOY_AGENT_TOKEN_FILE: "/etc/token" },
          ...{ HTTPS_PROXY: "http://u:p%40ss@proxy:3128", NOTE: `50% of "$HOME" \\ it's & <b>` },
        },
      },
    },
  },
  {
    what: "agents of a Mac with all that can be said",
    kind: "darwin",
    platform: "darwin",
    modules: `[ ${FULL} ]`,
    wanted: {},
  },
  {
    what: "a Mac whose Nix is not nix-darwin's, and whose agent is called after it",
    kind: "darwin",
    platform: "darwin",
    modules: `[ { nix.enable = false; networking.hostName = "mac"; services.nixdeploy-agent = { enable = true; url = "${URL}"; }; } ]`,
    wanted: {
      "org.nixos.nixdeploy-agent-mac.plist": { EnvironmentVariables: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" } },
    },
  },
  {
    what: "a unit of a user",
    kind: "home",
    modules: `[ ${agent(`tokenFile = "/t"; ${AWKWARD}`)} ]`,
    wanted: {
      "systemd/user/nixdeploy-agent-me.service": {
        Install: { WantedBy: ["default.target"] },
        Service: {
          Environment: expect.arrayContaining([
            ...['"NIXDEPLOY_AGENT_TOKEN_FILE=/t"', `"NIXDEPLOY_URL=${URL}"`, `"PATH=${HOME_PATH}"`],
          ]),
          ExecStart: [quoted(HOME_WORDS)],
        },
      },
    },
  },
  {
    what: "a unit of a user whose Nix is Home Manager's",
    kind: "home",
    modules: `[ ${agent("")} { nix.package = { type = "derivation"; name = "nix"; outPath = "/nix-of-mine"; version = "2.30"; }; } ]`,
    wanted: {
      "systemd/user/nixdeploy-agent-me.service": {
        Service: { Environment: expect.arrayContaining([`"PATH=/nix-of-mine/bin:${HOME_PATH}"`]) },
      },
    },
  },
  { what: "agents of a user with all that can be said", kind: "home", modules: `[ ${FULL} ]`, wanted: {} },
  {
    what: "a job of a user of a Mac, whose words can be read",
    kind: "home",
    platform: "darwin",
    modules: `[ ${agent("")} ]`,
    wanted: {
      "org.nix-community.home.nixdeploy-agent-me.plist": {
        ProgramArguments: waiting(HOME_WORDS),
        EnvironmentVariables: { NIXDEPLOY_URL: URL, PATH: HOME_PATH },
        StandardErrorPath: "/home/me/Library/Logs/nixdeploy-agent-me.log",
      },
    },
  },
  { what: "jobs with all that can be said", kind: "home", platform: "darwin", modules: `[ ${FULL} ]`, wanted: {} },
];

for (const { what, wanted, ...evaluation } of CASES) {
  const renderers = renderersOf(evaluation.kind);
  test(`${what} (${renderers.map(({ name }) => name).join(", ")})`, async () => {
    const [standIn = {}, ...others] = await Promise.all(
      renderers.map(async ({ render }) => await read(await render(evaluation, env))),
    );
    expect(Object.keys(standIn)).not.toEqual([]);
    expect(standIn).toMatchObject(wanted);
    for (const other of others) expect(other).toEqual(standIn);
  }, 60_000);
}

describe("what is wrong is refused, in words of ours", () => {
  const first = `services.nixdeploy-agent = { enable = true; url = "${URL}"; };`;
  const cases: readonly (readonly [kind: ModuleKind, modules: string, said: string])[] = [
    ["darwin", `[ { ${first} } ]`, "no networking.hostName, so say what its agent is called"],
    ["darwin", `[ ${agent('agents.a.profile = "system";')} ]`, "the same profile: /nix/var/nix/profiles/system"],
    ["home", `[ ${agent("agents.a = { };")} ]`, "the same profile: /home/me/.local/state/nix/profiles/home-manager"],
    ["nixos", `[ { services.nixdeploy-agent.enable = true; networking.hostName = "nuc"; } ]`, "needs `url`"],
  ];
  for (const [kind, modules, said] of cases) {
    for (const { name, render } of renderersOf(kind)) {
      test(`${said} (${name})`, async () => {
        const platform = kind === "darwin" ? "darwin" : "linux";
        await expect(render({ kind, platform, modules }, env)).rejects.toThrow(said);
      }, 60_000);
    }
  }
});

describe("systemd understands every line", () => {
  for (const kind of ["nixos", "home"] as const) {
    for (const { name, render } of renderersOf(kind)) {
      test(`of ${kind === "nixos" ? "a system" : "a user"} (${name})`, async () => {
        await using directory = await createTemporaryDirectory("nix-rendered");
        // It looks whether there is such a program.
        const prefix = join(directory.path, "program");
        await mkdir(join(prefix, "bin"), { recursive: true });
        await cp("/bin/true", join(prefix, "bin/nixdeploy"));
        const modules = kind === "nixos" ? `[ ${FULL} ${SERVER} ]` : `[ ${FULL} ]`;
        const files = Object.entries(await render({ kind, modules, prefix }, env));
        const paths = files.map(([file]) => join(directory.path, basename(file)));
        for (const [index, [, text]] of files.entries()) await writeFile(paths[index] ?? "", text);
        const manager = kind === "nixos" ? [] : ["--user"];
        const verify = ["systemd-analyze", ...manager, "verify", "--man=no", "--recursive-errors=no", ...paths];
        const { exitCode, stdout, stderr } = await runProcess(verify, { env: { XDG_RUNTIME_DIR: directory.path } });
        expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: "", stderr: "" });
        // And says so when it does not.
        const [path = ""] = paths;
        await writeFile(path, `${files[0]?.[1]}\n[Service]\nEnvironment=A=%4\n`);
        expect((await runProcess(verify, { env: { XDG_RUNTIME_DIR: directory.path } })).stderr).toContain("Failed to");
      }, 60_000);
    }
  }
});
