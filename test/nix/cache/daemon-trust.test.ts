/** Who checks signatures at an import, and what is said when the daemon finds none that it knows. */
import { expect, test } from "bun:test";
import { NixdeployError } from "../../../src/errors.ts";
import { explainImportFailure, mustDaemonCheck } from "../../../src/nix/cache/download/daemon-trust.ts";
import { DaemonError } from "../../../src/nix/daemon/daemon-error.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { narInfoOf } from "../../support/faulty-cache.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const KEY = secretKeyFromSeed("ours-1", new Uint8Array(32).fill(1));
const OTHER = secretKeyFromSeed("other-1", new Uint8Array(32).fill(2));
const options = {
  info: narInfoOf(createTinyPath("app"), KEY),
  trustedKeys: [publicKeyOf(OTHER), publicKeyOf(KEY)],
};

test.each([
  { trust: "trusted", check: false },
  { trust: "unknown", check: false },
  { trust: "not-trusted", check: true },
] as const)("a daemon that says $trust is asked to check: $check", ({ trust, check }) => {
  expect(mustDaemonCheck(trust)).toBe(check);
});

test.each([
  `cannot add path '${options.info.storePath}' because it lacks a valid signature`,
  `cannot add path '${options.info.storePath}' because it lacks a signature by a trusted key`,
])("%s: names the line that nix.conf needs", (message) => {
  const refusal = new DaemonError("add it", { message, traces: [] });
  const error = explainImportFailure(refusal, options);
  if (!(error instanceof NixdeployError)) throw new Error("no error for people");
  expect(error.message).toStartWith(
    `cannot add ${options.info.storePath} to the Nix store: it has no signature by a key`,
  );
  expect(error.hint).toContain(`\`extra-trusted-public-keys = ${formatPublicKey(publicKeyOf(KEY))}\``);
  expect(error.hint).toContain("trusted-users");
  expect(error.hint).not.toContain("other-1");
  expect(error.cause).toBe(refusal);
});

test("every other failure is passed on as it is", () => {
  const full = new DaemonError("add it", { message: "No space left on device", traces: [] });
  expect(explainImportFailure(full, options)).toBe(full);
});
