/**
 * `push --watch-exec` by somebody who is not root and whom the daemon does not trust, as on a shared CI runner: what is built
 * through the daemon is in the cache, whoever built it, also where the store may not be listed.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Device } from "../support/device.ts";
import { type CliOptions, createFleet, type Fleet } from "../support/fleet.ts";

const ANN = { name: "ann", id: 4_711 } as const;
const LISTABLE = 0o1775;
/** May be entered and not listed, as some shared machines have it. */
const HIDDEN = 0o1771;

const resultSchema = z.object({ exitCode: z.number(), built: z.array(z.string()), failed: z.array(z.unknown()) });

let fleet: Fleet;
let runner: Device;
let token: string;
let runs = 0;

beforeAll(async () => {
  fleet = await createFleet("watch-exec-users");
  runner = await fleet.addDevice("runner", { users: [ANN] });
  token = await fleet.makeToken("push");
}, 60_000);
afterAll(async () => await fleet[Symbol.asyncDispose](), 30_000);

/** Two derivations, new ones for each call, of which the second needs the first. */
function twoBuilds(): string {
  runs += 1;
  const build = (name: string, script: string, more = "") =>
    `derivation { ${more}name = "${name}-${runs}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "${script}" ]; }`;
  const first = build("first", `echo ${runs} > $out`);
  return build("second", "echo $first > $out", `first = ${first}; `);
}

const nixBuild = (expression: string) => `nix-build --no-out-link -E '${expression}' >&2`;

async function watch(script: string, options: CliOptions = {}) {
  const words = ["push", "--watch-exec", "--json", "--verbose", "--", "sh", "-c", script];
  const result = await fleet.run(words, { machine: runner, user: ANN.name, token, ...options });
  return { ...result, json: () => resultSchema.parse(JSON.parse(result.stdout)) };
}

/** Which of these the cache lacks, asked where they are. */
async function missing(paths: readonly string[]): Promise<string[]> {
  const dry = await fleet.expectRun(["push", "--dry-run", "--json", ...paths], { machine: runner });
  return z.object({ missing: z.array(z.string()) }).parse(JSON.parse(dry)).missing;
}

test("what it builds through the daemon", async () => {
  const result = await watch(`id -u >&2; ${nixBuild(twoBuilds())}`);
  expect([result.exitCode, result.stderr]).toEqual([0, expect.stringContaining(`${ANN.id}\n`)]);
  expect(result.stderr).toContain("by=inotify");
  expect(result.json()).toMatchObject({ exitCode: 0, failed: [] });
  expect(result.json().built).toHaveLength(2);
  expect(await missing(result.json().built)).toEqual([]);
}, 30_000);

test("and what somebody else builds there meanwhile", async () => {
  const flag = join(runner.directory, "homes/ann/go");
  const script = `echo watching >&2; while [ ! -e ${flag} ]; do sleep 0.1; done`;
  const words = ["push", "--watch-exec", "--json", "--", "sh", "-c", script];
  await using process = await fleet.start(words, { machine: runner, user: ANN.name, token });
  await process.waitForLine(/^watching$/, { timeoutMs: 30_000 });
  await runner.run(["sh", "-c", `${nixBuild(twoBuilds())}; touch ${flag}`]);
  expect((await process.exited).exitCode).toBe(0);
  const stdout = process.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  const { built } = resultSchema.parse(JSON.parse(stdout.join("\n")));
  expect(built).toHaveLength(2);
  expect(await missing(built)).toEqual([]);
}, 30_000);

test("in a store whose names only the daemon may list", async () => {
  const store = join(runner.directory, "nix/store");
  await chmod(store, HIDDEN);
  try {
    const result = await watch(nixBuild(twoBuilds()));
    expect([result.exitCode, result.stderr]).toEqual([0, expect.stringContaining("by=polling")]);
    expect(result.json().built).toHaveLength(2);
    expect(await missing(result.json().built)).toEqual([]);
  } finally {
    await chmod(store, LISTABLE);
  }
}, 30_000);

test("without a daemon nothing is run, and the message says what to start", async () => {
  const result = await watch("echo ran >&2", { env: { NIX_DAEMON_SOCKET_PATH: "/nowhere" } });
  expect([result.exitCode, result.stderr]).toEqual([1, expect.stringContaining("Start nix-daemon on this machine")]);
  expect(result.stderr).not.toContain("ran\n");
}, 30_000);
