/** `workspace` and the caches of one, on the coordinator's own host: the whole way through the API to a real database. */
import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import type { z } from "zod";
import { cacheListSchema, foreignCacheListSchema, keyVoucherListSchema } from "../../src/api/caches.ts";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { workspaceListSchema, workspaceSchema } from "../../src/api/workspaces.ts";
import { formatDuration, parseDuration } from "../../src/commands/command-line/duration.ts";
import { whyNotVouched } from "../../src/key-voucher.ts";
import { formatPublicKey, formatSecretKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

async function openHost() {
  const directory = await createTemporaryDirectory("workspaces");
  const run = async (...words: readonly string[]) => await runCommand([...words, "--data-dir", directory.path]);
  return {
    run,
    /** @throws unless it ends with 0 */
    async json<Schema extends z.ZodType>(schema: Schema, ...words: readonly string[]): Promise<z.output<Schema>> {
      const { exitCode, stdout, stderr } = await run(...words, "--json");
      if (exitCode !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
      return schema.parse(JSON.parse(stdout));
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

describe("workspace", () => {
  test("make, list, show, set, rename, delete", async () => {
    await using host = await openHost();
    expect(await host.json(workspaceSchema, "workspace", "create", "prod")).toMatchObject({ caches: ["prod"] });
    const { workspaces } = await host.json(workspaceListSchema, "workspace", "list");
    expect(workspaces.map(({ name }) => String(name))).toEqual(["default", "prod"]);
    const set = await host.run("workspace", "set", "prod", "--confirm-window", "5m", "--log-retention", "30d");
    expect(set.stdout).toContain("confirm window:     5m\nactivation timeout: default\n");
    await host.run("workspace", "set", "prod", "--confirm-window", "default", "--expires", "12h");
    const shown = await host.json(workspaceSchema, "workspace", "show", "prod");
    expect(shown.settings).toEqual({
      ...{ confirmWindowMs: null, activationTimeoutMs: null, expiresMs: 43_200_000, logRetentionMs: 2_592_000_000 },
      deploymentRetentionMs: null,
    });
    expect((await host.run("workspace", "rename", "prod", "production")).stdout).toContain(
      "name:               production",
    );
    const deleted = await host.run("workspace", "delete", "production");
    expect([deleted.exitCode, deleted.stdout]).toEqual([0, ""]);
    expect(deleted.stderr).toContain("deleted the workspace production: 0 agents forgotten, 0 tokens revoked");
    const gone = await host.run("workspace", "show", "production");
    expect([gone.exitCode, gone.stderr]).toEqual([1, expect.stringContaining("cannot find the workspace production")]);
  });

  test.each([
    [["workspace", "create"], "NAME is missing"],
    [["workspace", "set", "prod"], "no setting is given"],
    [["workspace", "set", "prod", "--expires", "soon"], "a duration is written like"],
    [["cache", "set", "prod"], "give one of --public and --private, or --default"],
    [["cache", "add-foreign", "x", "--substituter", "https://x"], "--public-key is missing"],
    [["cache", "vouch", "x"], "give the cache's --public-key, or --withdraw alone"],
    [["cache", "vouch", "x", "--withdraw", "--public-key", KEY], "give the cache's --public-key, or --withdraw alone"],
    [["cache", "vouch", "x", "--public-key", KEY], "there is no key to sign with"],
    [["token", "create", "--kind", "read", "--global"], "--global is for --kind admin"],
    [["push", "--cache", "a", "--workspace", "b", "/nix/store/x"], "--workspace has nothing to choose"],
  ])("%p is a usage error", async (words, text) => {
    const { exitCode, stderr } = await runCommand(words);
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining(text)]);
  });
});

describe("cache", () => {
  test("several of a workspace, one of them the default, and foreign ones", async () => {
    await using host = await openHost();
    await host.run("workspace", "create", "prod");
    await host.run("cache", "create", "tools", "--workspace", "prod", "--public");
    await host.run("cache", "set", "tools", "--default");
    const foreign = ["cache", "add-foreign", "nixos", "--substituter", "https://cache.nixos.org/", "--public-key", KEY];
    expect((await host.run(...foreign, "--workspace", "prod")).stdout).toContain(
      "url:         https://cache.nixos.org\n",
    );
    const listed = await host.json(
      cacheListSchema.extend(foreignCacheListSchema.shape),
      ...["cache", "list", "--workspace", "prod"],
    );
    expect(listed.caches.map((cache) => `${cache.name} ${cache.public} ${cache.default}`)).toEqual([
      ...["tools true true", "prod false false"],
    ]);
    expect(listed.foreignCaches).toMatchObject([{ name: "nixos", workspace: "prod", publicKeys: [KEY] }]);
    const refused = await host.run("cache", "delete", "tools");
    expect([refused.exitCode, refused.stderr]).toEqual([
      1,
      expect.stringContaining("it is the default of its workspace"),
    ]);
    expect((await host.run("cache", "delete", "prod")).exitCode).toBe(0);
    expect((await host.run("cache", "remove-foreign", "nixos", "--workspace", "prod")).exitCode).toBe(0);
    expect((await host.run("cache", "remove-foreign", "nixos", "--workspace", "prod")).exitCode).toBe(1);
  });
});

test("vouching for a cache's keys, and withdrawing it", async () => {
  await using host = await openHost();
  await using directory = await createTemporaryDirectory("vouch");
  const secret = secretKeyFromSeed("fleet-1", new Uint8Array(32).fill(7));
  const file = directory.join("fleet.secret");
  await writeFile(file, `${formatSecretKey(secret)}\n`);
  await host.run("cache", "add-foreign", "nixos", "--substituter", "https://cache.nixos.org/", "--public-key", KEY);
  const vouch = ["cache", "vouch", "nixos", "--signing-key-file", file];
  const said = await host.run(...vouch, "--public-key", KEY);
  expect([said.exitCode, said.stdout]).toEqual([
    0,
    `${formatPublicKey(publicKeyOf(secret))} vouches for ${KEY} of the cache nixos\n`,
  ]);
  const { keyVouchers } = await host.json(keyVoucherListSchema, "cache", "list");
  expect(keyVouchers.map(whyNotVouched)).toEqual([null]);
  const other = await host.run(...vouch, "--public-key", formatPublicKey(publicKeyOf(secret)));
  expect([other.exitCode, other.stderr]).toEqual([1, expect.stringContaining("the cache does not sign with fleet-1:")]);
  const withdraw = async () => (await host.run("cache", "vouch", "nixos", "--withdraw")).exitCode;
  expect([await withdraw(), await withdraw()]).toEqual([0, 1]);
});

test("an admin token for all workspaces, and the tokens of one", async () => {
  await using host = await openHost();
  await host.run("workspace", "create", "prod");
  const everywhere = await host.json(createdTokenSchema, "token", "create", "--kind", "admin", "--global");
  expect(everywhere.workspace).toBeNull();
  const local = await host.json(createdTokenSchema, "token", "create", "--kind", "read", "--workspace", "prod");
  const { stdout } = await host.run("token", "list", "--workspace", "prod");
  expect([stdout.includes(local.id), stdout.includes(everywhere.id)]).toEqual([true, false]);
});

test.each(["1s", "90s", "5m", "1h30m", "30d", "1d2h3m4s"])("the duration %s is written as it is read", (text) => {
  expect(parseDuration(formatDuration(parseDuration(text)))).toBe(parseDuration(text));
});
