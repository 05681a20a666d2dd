/** The key that signs closures before they leave: from `--signing-key-file`, else from the environment. */
import { describeError, NixdeployError } from "../errors.ts";
import { NixParseError } from "../nix/parse-error.ts";
import { parseSecretKey, type SecretKey } from "../nix/signing-key.ts";
import type { Environment } from "./command-line/context.ts";
import { readKey, readSecretFile } from "./command-line/environment.ts";

/** Null when none is named. @throws NixdeployError("usage") for one that is none, or cannot be read */
export async function readSigningKey(env: Environment, keyFile: string | undefined): Promise<SecretKey | null> {
  const text =
    keyFile === undefined ? await readKey(env, "signing") : await readSecretFile(keyFile, "--signing-key-file");
  return text === null ? null : parseSigningKey(text);
}

function parseSigningKey(text: string): SecretKey {
  try {
    return parseSecretKey(text.trim());
  } catch (error) {
    const why = error instanceof NixParseError ? error.reason : describeError(error);
    throw new NixdeployError("usage", `cannot use the signing key: ${why}`, {
      hint: "It is one line NAME:BASE64, as `nix key generate-secret` or `nix-store --generate-binary-cache-key` makes it.",
      cause: error,
    });
  }
}
