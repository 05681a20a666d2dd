/**
 * The table "Coming from nix-deploy" of docs/copy.md, line by line, each command as it stands there, in its order, against
 * one host: what it leaves behind. A line that nothing is expected of fails, and so does an expectation without a line.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Builder, createBuilder } from "../support/builder.ts";
import { createDevice, type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { BINARY } from "../support/fleet.ts";
import type { RunResult } from "../support/processes.ts";
import { type SshServer, startSshServer } from "../support/ssh-server.ts";
import { prepareSudo } from "../support/sudo.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const BOB = { name: "bob", id: 64_003 };
const PROFILES = "/nix/var/nix/profiles";
const GUIDE = readFileSync(join(import.meta.dir, "../../docs/copy.md"), "utf8");
const VERBS = [...GUIDE.matchAll(/^\| `((?:path|system)[^|]*?) \| `(nixdeploy [^`]+)` \|/gm)].map(
  ([, theirs = "", ours = ""]) => ({ theirs: theirs.replaceAll("`", ""), ours }),
);

let stack: AsyncDisposableStack;
let builder: Builder;
let nuc: Device;
let ssh: SshServer;
/** Where the commands are typed: `result`, `broken` and `paths` are there. */
let here: string;
let tools: string;
let old: string;
let system: string;
let broken: string;
let onlyThere: string;
let fromInput: string;
let unsigned: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const directory = stack.use(await createTemporaryDirectory("copy-verbs")).path;
  builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  nuc = stack.use(await createDevice({ name: "nuc", directory: join(directory, "nuc"), users: [BOB] }));
  old = await builder.build("system", { name: "nuc", version: "0" });
  system = await builder.build("system", { name: "nuc", version: "1" });
  const units = [{ name: "broken.service", fails: true }];
  broken = await builder.build("system", { name: "nuc", version: "2", units });
  tools = await builder.build("profile", { name: "tools", version: "1" });
  await nuc.install(builder, old);
  await nuc.startDaemon();
  await prepareSudo(nuc, { free: ["bob"] });
  await writeFile(join(nuc.directory, "note"), "only there");
  onlyThere = await nuc.run(["nix-store", "--add", join(nuc.directory, "note")]);
  ssh = stack.use(await startSshServer(nuc, { users: ["bob"] }));
  here = join(builder.directory, "here");
  await mkdir(here);
  fromInput = await builder.build("app", { name: "from-input", version: "1" });
  unsigned = await builder.build("app", { name: "unsigned", version: "1" });
  await writeFile(join(here, "paths"), `${fromInput}\n`);
  await builder.run(["ln", "-s", broken, join(here, "broken")]);
}, 120_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);

async function type(line: string, result: string) {
  await builder.run(["ln", "-sfn", result, join(here, "result")]);
  const client = await ssh.clientWith({ lines: ["Host nuc", "HostName 127.0.0.1", `Port ${ssh.port}`, "Host *"] });
  const command = ["sh", "-c", line.replace("PATH", onlyThere)];
  const PATH = `${dirname(BINARY)}:${builder.environment["PATH"]}`;
  return { command, options: { cwd: here, env: { ...client, PATH }, timeoutMs: 60_000 } };
}

const isThere = async (path: string) => (await nuc.exec(["nix-store", "--check-validity", path])).exitCode === 0;
const sides = async () => ({
  profile: await nuc.link(SYSTEM_PROFILE),
  running: await nuc.link("/run/current-system"),
});

type Expectation = { readonly result?: () => string; readonly check: (ran: RunResult) => Promise<void> };
const succeeded = ({ exitCode }: RunResult) => expect(exitCode).toBe(0);

/** By what nix-deploy is told. */
const EXPECTED: Readonly<Record<string, Expectation>> = {
  "path --to root@nuc --path ./result": {
    check: async (ran) => {
      succeeded(ran);
      expect(await isThere(tools)).toBe(true);
    },
  },
  "path --from root@nuc --path PATH": {
    check: async (ran) => {
      succeeded(ran);
      expect(await builder.run(["cat", onlyThere])).toBe("only there");
    },
  },
  "path --to root@nuc (path on stdin)": {
    check: async (ran) => {
      expect(ran.stdout).toBe(`${fromInput}\n`);
      expect(await isThere(fromInput)).toBe(true);
    },
  },
  "path --noSign": {
    result: () => unsigned,
    check: async (ran) => {
      succeeded(ran);
      const signatures = (path: string) => nuc.run(["nix", "path-info", "--sigs", path]);
      expect([await signatures(tools), await signatures(unsigned)]).toEqual([
        expect.stringContaining("builder-copy-1:"),
        expect.not.stringContaining("builder-copy-1:"),
      ]);
    },
  },
  "path --profileName tools": {
    check: async () => expect(await nuc.link(`${PROFILES}/tools`)).toBe(tools),
  },
  "path --profilePath DIR --profileName tools": {
    check: async () => expect(await nuc.link(`${PROFILES}/more/tools`)).toBe(tools),
  },
  "path --sudo": { check: async () => expect(await nuc.link(`${PROFILES}/by-sudo`)).toBe(tools) },
  "system --dry-activate": {
    result: () => system,
    check: async (ran) => {
      succeeded(ran);
      expect(await sides()).toEqual({ profile: old, running: old });
    },
  },
  "system or system --test": {
    result: () => system,
    check: async (ran) => {
      succeeded(ran);
      expect(await sides()).toEqual({ profile: old, running: system });
    },
  },
  "system --switch": {
    result: () => system,
    check: async (ran) => {
      succeeded(ran);
      expect(await sides()).toEqual({ profile: system, running: system });
      expect(await nuc.bootDefault()).toBe(system);
    },
  },
  "system --boot": {
    result: () => old,
    check: async (ran) => {
      succeeded(ran);
      expect(await sides()).toEqual({ profile: old, running: system });
    },
  },
  "system --systemName spare": {
    result: () => system,
    check: async (ran) => {
      succeeded(ran);
      expect(await nuc.link(`${PROFILES}/system-profiles/spare`)).toBe(system);
      expect(await nuc.link(SYSTEM_PROFILE)).toBe(old);
    },
  },
  "system --failOnPartialSuccess": {
    check: async (ran) => {
      expect(ran).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("it ended rolled-back") });
      expect(await sides()).toEqual({ profile: old, running: system });
    },
  },
  "system (partial success)": {
    check: async (ran) => {
      expect(ran).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("it ended degraded") });
      expect(await sides()).toEqual({ profile: broken, running: broken });
    },
  },
};
/** The last one: it takes the power. */
const REBOOT = "system --reboot";

test("every line is expected, and every expectation has its line", () => {
  expect(VERBS.map(({ theirs }) => theirs).sort()).toEqual([...Object.keys(EXPECTED), REBOOT].sort());
  expect(VERBS.at(-1)?.theirs).toBe(REBOOT);
});

for (const { theirs, ours } of VERBS.filter(({ theirs: name }) => name !== REBOOT)) {
  test(`${theirs}: ${ours}`, async () => {
    const expected = EXPECTED[theirs];
    const { command, options } = await type(ours, expected?.result?.() ?? tools);
    await expected?.check(await builder.exec(command, options));
  }, 60_000);
}

test(`${REBOOT}: waits until the machine is back with it`, async () => {
  const { command, options } = await type(VERBS.at(-1)?.ours ?? "", system);
  const running = builder.spawn(command, options);
  expect(await nuc.awaitReboot(running.output)).toBe(system);
  await nuc.run(["mkdir", "-p", "/run/sshd"]);
  await ssh.start();
  expect(await running.exited).toMatchObject({ exitCode: 0 });
  expect(running.output()).toContain("succeeded: it has booted");
}, 90_000);
