/** `push --watch-exec` with the compiled binary and real Nix: nothing that is built is lost, and the exit code is the command's. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { BINARY, type CliOptions, createFleet, type Fleet } from "../support/fleet.ts";
import { type NixDaemon, startNixDaemon } from "../support/nix-daemon.ts";

const resultSchema = z.object({
  exitCode: z.number(),
  built: z.array(z.string()),
  failed: z.array(z.object({ path: z.string(), reason: z.string() })),
  uploaded: z.number(),
});

let fleet: Fleet;
let daemon: NixDaemon;
let runs = 0;

beforeAll(async () => {
  fleet = await createFleet("watch-exec");
  daemon = await startNixDaemon(fleet.builder);
}, 60_000);
afterAll(async () => {
  await daemon[Symbol.asyncDispose]();
  await fleet[Symbol.asyncDispose]();
}, 30_000);

/** A Nix expression of `count` derivations, new ones for each test, of which the last needs all. */
function manyBuilds(count: number): string {
  runs += 1;
  const build = (name: string, more = "") =>
    `derivation { ${more === "" ? "" : "inherit parts; "}name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out; ${more}" ]; }`;
  const parts = Array.from({ length: count }, (_, index) => build(`built-${runs}-${index}`));
  return `let parts = [ ${parts.map((part) => `(${part})`).join(" ")} ]; in ${build(`all-${runs}`, "echo $parts >> $out")}`;
}

const nixBuild = (expression: string) => ["nix-build", "--no-out-link", "-j", "8", "-E", expression];

async function watch(command: readonly string[], options: CliOptions = {}) {
  const result = await fleet.run(["push", "--watch-exec", "--json", "--", ...command], options);
  return { ...result, json: () => resultSchema.parse(JSON.parse(result.stdout)) };
}

/** Which of these the cache lacks, asked as anybody would. */
async function missing(paths: readonly string[]): Promise<string[]> {
  const dry = await fleet.expectRun(["push", "--dry-run", "--json", ...paths]);
  return z.object({ missing: z.array(z.string()) }).parse(JSON.parse(dry)).missing;
}

describe("everything that was built is in the cache", () => {
  test("many builds at once", async () => {
    const result = await watch(nixBuild(manyBuilds(40)));
    expect(result.exitCode).toBe(0);
    const { built, failed, uploaded } = result.json();
    expect(built.filter((path) => /-(built|all)-/.test(path))).toHaveLength(41);
    expect(failed).toEqual([]);
    expect(uploaded).toBeGreaterThanOrEqual(41);
    expect(await missing(built)).toEqual([]);
  });

  test("a build in the last moment, each of ten times", async () => {
    for (let round = 0; round < 10; round += 1) {
      const result = await watch(nixBuild(manyBuilds(1)));
      expect([result.exitCode, result.json().built.length]).toEqual([0, 2]);
      expect(await missing(result.json().built)).toEqual([]);
    }
  });

  test("what was there before, and a command that builds nothing, push nothing", async () => {
    const result = await watch(["true"]);
    expect(result.json()).toMatchObject({ exitCode: 0, built: [], uploaded: 0 });
  });

  test("uploads go on while the command builds", async () => {
    const flag = join(fleet.directory, "go");
    const expression = manyBuilds(1);
    const script = `nix-build --no-out-link -E '${expression}' >&2; while [ ! -e ${flag} ]; do sleep 0.1; done`;
    await using process = await fleet.start(["push", "--watch-exec", "--verbose", "--", "sh", "-c", script]);
    await process.waitForLine(/pushed [12] paths?$/, { timeoutMs: 60_000 });
    await Bun.write(flag, "");
    expect((await process.exited).exitCode).toBe(0);
  });

  test("without a daemon that listens, too", async () => {
    const env = { NIX_DAEMON_SOCKET_PATH: "/nowhere", NIX_REMOTE: "local" };
    const result = await watch(nixBuild(manyBuilds(3)), { env });
    expect(result.json()).toMatchObject({ exitCode: 0, failed: [] });
    expect(await missing(result.json().built)).toEqual([]);
  });
});

describe("the command's own end", () => {
  test("its exit code, with what it had built until then", async () => {
    const expression = manyBuilds(2);
    const result = await watch(["sh", "-c", `nix-build --no-out-link -E '${expression}'; exit 42`]);
    expect([result.exitCode, result.json().exitCode]).toEqual([42, 42]);
    expect(result.json().built).toHaveLength(3);
    expect(await missing(result.json().built)).toEqual([]);
  });

  test("killed: 128 and the signal", async () => {
    const expression = manyBuilds(1);
    const result = await watch(["sh", "-c", `nix-build --no-out-link -E '${expression}'; kill -9 $$`]);
    expect(result.exitCode).toBe(137);
    expect(await missing(result.json().built)).toEqual([]);
  });

  test("a signal is passed on, and what was built before is pushed", async () => {
    const expression = manyBuilds(1);
    const script = `trap 'echo got it >&2; exit 7' TERM; nix-build --no-out-link -E '${expression}' >&2; echo built >&2; while :; do sleep 0.1; done`;
    await using process = await fleet.start(["push", "--watch-exec", "--", "sh", "-c", script]);
    await process.waitForLine(/^built$/, { timeoutMs: 60_000 });
    const cli = fleet.builder.processes().find((id) => commandOf(id).includes("--watch-exec"));
    if (cli === undefined) throw new Error("the command does not run");
    globalThis.process.kill(cli, "SIGTERM");
    await process.waitForLine(/got it/);
    expect((await process.exited).exitCode).toBe(7);
    expect(process.output()).toContain("2 paths built meanwhile");
  });

  test("no such program: nothing is run", async () => {
    const result = await fleet.run(["push", "--watch-exec", "--", "frobnicate-it"]);
    expect([result.exitCode, result.stderr]).toEqual([2, expect.stringContaining("there is no such program")]);
  });

  test.each([
    [["push", "--watch-exec"], "no command is given"],
    [["push", "--watch-exec", "--dry-run", "--", "true"], "--dry-run does not go with --watch-exec"],
  ])("%p is a usage error", async (words, text) => {
    const result = await fleet.run(words);
    expect([result.exitCode, result.stderr]).toEqual([2, expect.stringContaining(text)]);
  });
});

test("the coordinator goes away for good: the command's success is no success", async () => {
  const expression = manyBuilds(2);
  const token = await fleet.makeToken("push");
  const revoke = `${BINARY} token revoke ${token.split("_")[2]} --data-dir ${fleet.coordinator.dataDirectory}`;
  const script = `${revoke} >&2 && nix-build --no-out-link -E '${expression}' >&2`;
  const result = await watch(["sh", "-c", script], { token });
  expect(result.exitCode).toBe(1);
  expect(result.json()).toMatchObject({ exitCode: 0, uploaded: 0 });
  expect(result.json().failed).toHaveLength(3);
  expect(result.stderr).toContain("cannot push what was built: 3 of 3 paths");
});

function commandOf(processId: number): string {
  return readFileSync(`/proc/${processId}/cmdline`, "utf8");
}
