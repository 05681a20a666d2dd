/**
 * Bad input of every command, with the compiled binary: the tables are in bad-input/, one row a line; what is asked of
 * every answer, whatever the row, is in bad-input/verdict.ts. One coordinator and one agent serve all rows, and must be
 * none the worse for it at the end.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { BINARY } from "../support/fleet.ts";
import { runProcess } from "../support/processes.ts";
import { ADDRESSES, KEYS, TOKENS } from "./bad-input/access.ts";
import type { BadInput } from "./bad-input/case.ts";
import { testDisks } from "./bad-input/disks.ts";
import { AGENTS, DATA_DIRECTORIES, LISTENING } from "./bad-input/hosts.ts";
import { testPatience } from "./bad-input/patience.ts";
import { listMisuse } from "./bad-input/registry.ts";
import { expectNoSecret, expectOneError } from "./bad-input/verdict.ts";
import { NAMES, OUTPUTS, PATHS, SPECS } from "./bad-input/words.ts";
import { createWorld, type World } from "./bad-input/world.ts";

const misuses = await listMisuse();
let world: World;

beforeAll(async () => {
  world = await createWorld();
}, 120_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
}, 30_000);

describe("flags and arguments, of every command", () => {
  test.concurrent.each(misuses.map((row) => [row.what, row] as const))("%s", async (_, { words, says, hint }) => {
    const result = await runProcess([BINARY, ...words], { timeoutMs: 60_000 });
    expectOneError(result, { exitCode: 2, says, hint, secrets: world.secrets });
    expect(result.stderr).toContain(hint ?? "--help");
  });

  test("each command and each flag has its rows", () => {
    expect(misuses.length).toBeGreaterThan(300);
  });
});

const TABLES: Readonly<Record<string, readonly BadInput[]>> = {
  names: NAMES,
  paths: PATHS,
  specs: SPECS,
  "results that cannot be written": OUTPUTS,
  addresses: ADDRESSES,
  tokens: TOKENS,
  "signing keys": KEYS,
  "where to listen": LISTENING,
  "data directories": DATA_DIRECTORIES,
  agents: AGENTS,
};

for (const [table, rows] of Object.entries(TABLES)) {
  describe(table, () => {
    test.concurrent.each(rows.map((row) => [row.what, row] as const))("%s", async (_, row) => {
      const directory = world.newDirectory();
      await row.prepare?.(world, directory);
      const before = await readTree(directory);
      const result = await world.run(row, directory);
      const fill = (text: string) => world.fill(text, { new: directory });
      expectOneError(result, {
        exitCode: row.exitCode,
        says: fill(row.says),
        hint: row.hint === undefined ? undefined : fill(row.hint),
        secrets: world.secrets,
      });
      // Nothing lost: what was there is there, byte for byte.
      expect(await readTree(directory)).toMatchObject(before);
    });
  });
}

testDisks(() => world);
testPatience(() => world);

test("the coordinator is none the worse for all that", async () => {
  const { fleet } = world;
  const agents: unknown = JSON.parse(await fleet.expectRun(["agents", "--json"]));
  const first = expect.objectContaining({ name: "first", contact: "online", deployment: null });
  expect(agents).toMatchObject({ agents: expect.arrayContaining([first]) });
  expect(JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"]))).toMatchObject({ public: false });
  const output = fleet.coordinator.process.output();
  expect(output).not.toContain("bug");
  expectNoSecret({ stdout: output, stderr: "" }, world.secrets);
});

/** Path → mode and contents of every file; {} for what is not there. */
async function readTree(directory: string): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) tree[path] = `${(await stat(path)).mode} ${(await readFile(path)).toString("base64")}`;
  }
  return tree;
}
