/** `push` up to the point where it needs a Nix daemon; with one: test/integration/push.test.ts. */
import { expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const PATH = `/nix/store/${EXAMPLE_HASH_PART}-tool`;

test.each([
  ["no path", [], "no path was given"],
  ["what Cachix users write", ["mycache", PATH], "write --cache mycache"],
  ["a path that is nothing", ["./nothing"], "no such file"],
  ["a path outside the store", ["package.json"], "not in the Nix store"],
  ["a cache that cannot be", [PATH, "--cache", "a/b"], "is no cache name"],
  ["too many jobs", [PATH, "--jobs", "99"], "--jobs is a whole number from 1 to 32"],
  ["a key file that is not there", [PATH, "--signing-key-file", "/nonexistent/key"], "there is no such file"],
  ["a key on the command line", [PATH, "--signing-key", "x:y"], "Did you mean --signing-key-file?"],
] as const)("%s is a usage error", async (_what, words, text) => {
  await using fake = startFakeCoordinator();
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_PUSH_TOKEN: FAKE_TOKEN };
  const { exitCode, stdout, stderr } = await runCommand(["push", ...words], { env });
  expect([exitCode, stdout]).toEqual([2, ""]);
  expect(stderr).toContain(text);
  expect(fake.requests).toEqual([]);
});

test("a key that is none is refused without repeating it", async () => {
  await using directory = await createTemporaryDirectory("push");
  await using fake = startFakeCoordinator();
  await writeFile(directory.join("key"), "ci:c2VjcmV0c2VjcmV0\n");
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_PUSH_TOKEN: FAKE_TOKEN };
  const { exitCode, stderr } = await runCommand(["push", PATH, "--signing-key-file", directory.join("key")], { env });
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining("cannot use the signing key")]);
  expect(stderr).not.toContain("c2VjcmV0");
});
