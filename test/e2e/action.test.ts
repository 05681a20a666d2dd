/**
 * The GitHub Action, read from action.yml itself and run as GitHub's runner does (action-runner.ts): from a signed
 * release in a folder, with a real coordinator, Nix and a device.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createArchive } from "../../scripts/release/archive.ts";
import { formatSums, parseReleaseKey, SIGNATURE_NAME, SUMS_NAME, signSums } from "../../scripts/release/signature.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { type ActionRun, readAction, runAction } from "../support/action-runner.ts";
import { createBuilder } from "../support/builder.ts";
import { ensureDebianPackages } from "../support/debian.ts";
import type { Device } from "../support/device.ts";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import type { Machine } from "../support/machine.ts";

const ROOT = join(import.meta.dir, "../..");
const FILE = join(ROOT, "action.yml");
const ARCHIVE = `nixdeploy-${NIXDEPLOY_VERSION}-linux-${process.arch === "arm64" ? "arm64" : "x64"}`;

let fleet: Fleet;
let device: Device;
let release: string;
let keyFile: string;
let pushToken: string;
let activateToken: string;

beforeAll(async () => {
  await ensureDebianPackages(["curl", "jq", "openssl"]);
  fleet = await createFleet("action");
  [pushToken, activateToken] = await Promise.all([fleet.makeToken("push"), fleet.makeToken("activate")]);
  ({ release, keyFile } = await makeRelease(fleet.directory));
  device = await fleet.addDevice("nuc");
  await fleet.startAgent(device, { name: "tools", profile: "tools" });
}, 120_000);
afterAll(() => fleet[Symbol.asyncDispose]());

/** As scripts/release.ts makes one, of the program that the tests have. */
async function makeRelease(directory: string): Promise<{ readonly release: string; readonly keyFile: string }> {
  const folder = join(directory, "release");
  await mkdir(folder);
  const { privateKey, publicKey } = generateKeyPairSync("ed25519", {
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const contents = createArchive([{ name: `${ARCHIVE}/nixdeploy`, mode: 0o755, contents: await readFile(BINARY) }]);
  const sums = formatSums([{ name: `${ARCHIVE}.tar.gz`, contents }]);
  await writeFile(join(folder, `${ARCHIVE}.tar.gz`), contents);
  await writeFile(join(folder, SUMS_NAME), sums);
  await writeFile(join(folder, SIGNATURE_NAME), signSums(sums, parseReleaseKey(privateKey, publicKey)));
  await writeFile(join(directory, "release-key.pem"), publicKey);
  return { release: folder, keyFile: join(directory, "release-key.pem") };
}

async function run(inputs: Readonly<Record<string, string>>, on: Machine = fleet.builder): Promise<ActionRun> {
  const standard = { url: fleet.coordinator.url, "release-url": `file://${release}`, "release-key": keyFile };
  return await runAction({ file: FILE, machine: on, directory: fleet.directory, inputs: { ...standard, ...inputs } });
}

/** Words for `nix build` that make the spec of these agents. */
function buildSpec(agents: Readonly<Record<string, string>>): string {
  return `--file ${ROOT}/test/fixtures/nix/spec.nix --argstr options ${JSON.stringify({ agents })}`;
}

test("installs a verified release, builds, pushes and deploys, and says what came of it", async () => {
  const path = await fleet.builder.build("profile", { name: "tools", version: "1" });
  const done = await run({
    ...{ "push-token": pushToken, "activate-token": activateToken },
    ...{ build: buildSpec({ tools: path }), activate: "true", agents: "tools\n", "activate-flags": "--timeout 1m" },
  });
  expect(done).toMatchObject({ exitCode: 0, steps: ["install", "build", "push", "activate"] });
  expect(done.text).toContain(`nixdeploy ${NIXDEPLOY_VERSION}`);
  expect(done.outputs).toMatchObject({ outcome: "succeeded", "failed-agents": "" });
  expect(done.outputs["rollout-url"]).toBe(`${fleet.coordinator.url}/rollouts/${done.outputs["rollout"]}`);
  expect(done.outputs["paths"]).toMatch(/^\/nix\/store\/\w{32}-deploy\.json$/);
  expect(await device.link("/nix/var/nix/profiles/tools")).toBe(path);
  expect(done.text).not.toContain(pushToken);
}, 120_000);

test("pushes all that a command builds, and fails as it does", async () => {
  const options = JSON.stringify({ name: "watched", version: "1" });
  const command = `path=$(nix-build --no-out-link ${ROOT}/test/fixtures/nix/app.nix --argstr options '${options}')`;
  const done = await run({ "push-token": pushToken, run: `${command}\necho "built $path"\nexit 7` });
  expect(done).toMatchObject({ exitCode: 7, steps: ["install", "run"] });
  const [, path = ""] = /built (\/nix\/store\/\S+)/.exec(done.text) ?? [];
  const pushed = await fleet.expectRun(["push", "--dry-run", "--json", path]);
  expect(JSON.parse(pushed)).toMatchObject({ missing: [] });
}, 60_000);

test("a deployment that fails fails the job", async () => {
  const path = await fleet.builder.build("profile", {
    ...{ name: "tools", version: "2" },
    hook: { faults: [{ stage: "start", kind: "exit", argument: 1 }] },
  });
  const done = await run({
    ...{ "push-token": pushToken, "activate-token": activateToken },
    ...{ paths: `\n${path}\n`, spec: `tools=${path}`, activate: "true" },
  });
  expect({ exitCode: done.exitCode, steps: done.steps }).toEqual({
    ...{ exitCode: 1, steps: ["install", "push", "activate"] },
  });
  expect(done.outputs).toMatchObject({ paths: path, "failed-agents": "tools" });
  expect(done.outputs["outcome"]).not.toBe("succeeded");
}, 120_000);

test("what the step was given for itself is not the command's", async () => {
  const command =
    'echo "variables: $(env | grep -cE "^(NIXDEPLOY_PUSH_TOKEN|NIXDEPLOY_SIGNING_KEY|TOKEN|SIGNING_KEY)=")"';
  const done = await run({ "push-token": pushToken, run: command });
  expect(done.text).toContain("variables: 0\n");
}, 60_000);

test("a path that is not there is not left out", async () => {
  const path = await fleet.builder.build("app", { name: "there", version: "1" });
  const done = await run({ "push-token": pushToken, paths: `./nowhere/result\n${path}` });
  expect(done).toMatchObject({ exitCode: 1, steps: ["install", "push"] });
  expect(done.text).toContain("./nowhere/result");
}, 60_000);

describe("as a substituter for what the job does next", () => {
  test("a private cache is read with a token that may only read, and no other is kept", async () => {
    const path = await fleet.builder.build("app", { name: "substituted", version: "1" });
    await fleet.expectRun(["push", path]);
    const tokens = { "push-token": pushToken, "read-token": await fleet.makeToken("read") };
    await using other = await createBuilder({ directory: await mkdtemp(join(fleet.directory, "other-")) });
    const { exitCode, env, text } = await run({ ...tokens, substitute: "true" }, other);
    expect({ exitCode, text }).toMatchObject({ exitCode: 0 });
    expect(await other.run(["nix-store", "--realise", path], { env })).toBe(path);
    const kept = await readFile(join(String(env["RUNNER_TEMP"]), "nixdeploy/netrc"), "utf8");
    expect(kept).toContain(tokens["read-token"]);
    expect(kept).not.toContain(pushToken);

    const refused = await run({ "push-token": pushToken, substitute: "true" }, other);
    expect(refused).toMatchObject({ exitCode: 2, steps: ["install", "substitute"] });
    expect(refused.text).toContain("cannot keep this token for Nix: it is of kind push");
  }, 60_000);

  test("a public one takes any token, and keeps none", async () => {
    await fleet.expectRun(["cache", "set", "default", "--public"]);
    const path = await fleet.builder.build("app", { name: "public", version: "1" });
    await fleet.expectRun(["push", path]);
    await using other = await createBuilder({ directory: await mkdtemp(join(fleet.directory, "other-")) });
    const { exitCode, env, text } = await run({ "push-token": pushToken, substitute: "true" }, other);
    expect({ exitCode, text }).toMatchObject({ exitCode: 0 });
    expect(env["NIX_CONFIG"]).not.toContain("netrc");
    expect(await other.run(["nix-store", "--realise", path], { env })).toBe(path);
    await fleet.expectRun(["cache", "set", "default", "--private"]);
  }, 60_000);
});

describe("nothing is installed, and nothing runs, when", () => {
  const spoilt: readonly (readonly [what: string, spoil: (folder: string) => Promise<void>, said: string])[] = [
    [
      "the archive is another one",
      async (folder) => writeFile(join(folder, `${ARCHIVE}.tar.gz`), "another one"),
      "is not the file that was signed",
    ],
    [
      "the hashes were changed after they were signed",
      async (folder) => writeFile(join(folder, SUMS_NAME), `${"0".repeat(64)}  ${ARCHIVE}.tar.gz\n`),
      "the signature of SHA256SUMS is not of the key",
    ],
    [
      "there is no signature",
      async (folder) => writeFile(join(folder, SIGNATURE_NAME), ""),
      "the signature of SHA256SUMS is not of the key",
    ],
  ];
  for (const [what, spoil, said] of spoilt) {
    test(what, async () => {
      const folder = await mkdtemp(join(fleet.directory, "spoilt-"));
      await fleet.builder.run(["cp", "-r", `${release}/.`, folder]);
      await spoil(folder);
      const done = await run({ "release-url": `file://${folder}`, paths: "/nix/store/x", "push-token": pushToken });
      expect(done).toMatchObject({ exitCode: 1, steps: ["install"] });
      expect(done.text).toContain(said);
    }, 60_000);
  }

  test("there is no such release, or no key", async () => {
    const none = await run({ version: "9.9.9" });
    expect(none).toMatchObject({ exitCode: 1, steps: ["install"] });
    expect(none.text).toContain("could not be downloaded");
    expect((await run({ "release-key": "/nowhere.pem" })).text).toContain("there is no key to verify it with");
  });
});

test("all inputs and outputs are documented", async () => {
  const action = await readAction(FILE);
  const page = await readFile(join(ROOT, "docs/github-action.md"), "utf8");
  const rows = page.split("\n").flatMap((line) => /^\| (`.*?) \|/.exec(line)?.[1]?.match(/[\w-]+/g) ?? []);
  expect(rows.toSorted()).toEqual([...Object.keys(action.inputs), ...Object.keys(action.outputs)].toSorted());
});

test("no input is ever text of a script, and its version is ours", async () => {
  const action = await readAction(FILE);
  expect(action.inputs["version"]?.default).toBe(NIXDEPLOY_VERSION);
  expect(action.runs.steps.filter((step) => step.run.includes("${{"))).toEqual([]);
});
