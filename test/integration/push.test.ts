/** `push` out of real Nix stores, of each suite, into a coordinator that a test can look into. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { createSignatureVerifier } from "../../src/nix/signature.ts";
import { parsePublicKey } from "../../src/nix/signing-key.ts";
import { parseStorePath, storePathHash } from "../../src/nix/store-path.ts";
import { type Builder, createBuilder } from "../support/builder.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { type NixDaemon, startNixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf, NIX_SUITES } from "../support/nix-versions.ts";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

setDefaultTimeout(60_000);

let directory: TemporaryDirectory;
let builder: Builder;
let daemon: NixDaemon;
let path: string;

beforeAll(async () => {
  directory = await createTemporaryDirectory("push");
});

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

function push(fake: FakeCoordinator, words: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const variables = {
    NIXDEPLOY_URL: fake.url,
    NIXDEPLOY_PUSH_TOKEN: FAKE_TOKEN,
    NIX_DAEMON_SOCKET_PATH: daemon.hostSocketPath,
  };
  return runCommand(["push", ...words], { env: { ...variables, ...env } });
}

for (const suite of NIX_SUITES) {
  describe(`out of the Nix of ${suite}`, () => {
    beforeAll(async () => {
      builder = await createBuilder({ directory: directory.join(suite), nix: await ensureNixOf(suite) });
      daemon = await startNixDaemon(builder);
      path = await builder.build("app", { name: "tool", version: "1" });
    });

    afterAll(async () => {
      await daemon[Symbol.asyncDispose]();
      await builder[Symbol.asyncDispose]();
    });

    test("a closure goes up whole, once, with what the store knows of it", async () => {
      await using fake = startFakeCoordinator();
      const dry = await push(fake, ["--dry-run", path]);
      expect(dry.stdout.trim().split("\n")).toHaveLength(4);
      expect(fake.cache.paths.size).toBe(0);

      const first = await push(fake, [path]);
      expect(first).toMatchObject({ exitCode: 0, stdout: `${path}\n` });
      expect(first.stderr).toContain("pushed 4 paths");
      for (const expected of await builder.closure(path)) {
        const published = fake.cache.paths.get(storePathHash(parseStorePath(expected.storePath)));
        expect(published).toMatchObject({ narSizeBytes: expected.narSizeBytes, references: expected.references });
      }

      const second = await push(fake, [path, "--json"]);
      expect(JSON.parse(second.stdout)).toEqual({ paths: [path], uploaded: 0, skipped: 4, bytesUploaded: 0 });
      expect(second.stderr).toContain("nothing to do: the cache default has all of it (4 paths)");

      const next = await builder.build("app", { name: "tool", version: "2" });
      expect(JSON.parse((await push(fake, [next, "--json"])).stdout)).toMatchObject({ uploaded: 3, skipped: 1 });
    });

    test("a derivation goes up with all that is needed to build it", async () => {
      await using fake = startFakeCoordinator();
      const derivation = await builder.run(["nix-store", "--query", "--deriver", path]);
      const needed = (await builder.run(["nix-store", "--query", "--requisites", derivation])).split("\n");
      const { stdout, exitCode } = await push(fake, [derivation, "--json"]);
      expect(exitCode).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ paths: [derivation], uploaded: needed.length });
      expect(needed.every((one) => fake.cache.paths.has(storePathHash(parseStorePath(one))))).toBe(true);
    });

    test("a key that stays here signs each path", async () => {
      await using fake = startFakeCoordinator();
      const key = await builder.generateKey("ci-1");
      const { exitCode } = await push(fake, [path], { NIXDEPLOY_SIGNING_KEY_FILE: key.secretKeyFile });
      expect(exitCode).toBe(0);
      const verifier = createSignatureVerifier([parsePublicKey(key.publicKey)]);
      expect([...fake.cache.paths.values()].map((published) => verifier.verify(published))).toEqual(
        Array(4).fill("ci-1"),
      );
    });

    test("a path that is not in the store, and a daemon that is not there", async () => {
      await using fake = startFakeCoordinator();
      const absent = "/nix/store/00000000000000000000000000000000-absent";
      const notThere = await push(fake, [absent]);
      expect([notThere.exitCode, notThere.stderr]).toEqual([1, expect.stringContaining("not in the local Nix store")]);
      const noDaemon = await push(fake, [path], { NIX_DAEMON_SOCKET_PATH: join(directory.path, "nothing"), PATH: "/" });
      expect([noDaemon.exitCode, noDaemon.stdout]).toEqual([1, ""]);
    });
  });
}
