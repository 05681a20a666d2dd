/**
 * Keys that sign store paths, in Nix's text form.
 *
 *   secret = name ":" base64(32 bytes of seed, then 32 bytes of public key)      (libsodium's layout)
 *   public = name ":" base64(32 bytes of public key)
 *
 * Making the random seed is left to the caller. No error repeats any part of a secret key.
 * Source: Nix `src/libutil/signature/local-keys.cc` (older: `src/libstore/crypto.cc`).
 */
import { decodeBase64, encodeBase64 } from "./base64.ts";
import { NixParseError } from "./parse-error.ts";
import { publicKeyFromSeed } from "./signature.ts";

export type SecretKey = {
  /** Signatures carry it; by convention `host-1`. */
  readonly name: string;
  /** 32 bytes; the secret. */
  readonly seed: Uint8Array;
};

export type PublicKey = {
  readonly name: string;
  /** 32 bytes. */
  readonly bytes: Uint8Array;
};

const SEED_LENGTH = 32;
const PUBLIC_KEY_LENGTH = 32;
/** Printable ASCII without space and colon: a name has to survive lists separated by spaces. */
const NAME_PATTERN = /^[!-9;-~]{1,255}$/;

/**
 * Surrounding white space, such as the end of the file's line, is allowed.
 * @throws NixParseError for another form, and when the public half does not belong to the seed
 */
export function parseSecretKey(text: string): SecretKey {
  const { name, bytes } = parseNamedBytes("secret key", text, SEED_LENGTH + PUBLIC_KEY_LENGTH);
  const seed = bytes.slice(0, SEED_LENGTH);
  if (encodeBase64(publicKeyFromSeed(seed)) !== encodeBase64(bytes.subarray(SEED_LENGTH))) {
    throw new NixParseError("secret key", "its public half does not belong to it");
  }
  return { name, seed };
}

/** For a file with mode 0600; without an end of line, as Nix writes it. */
export function formatSecretKey(key: SecretKey): string {
  const bytes = new Uint8Array(SEED_LENGTH + PUBLIC_KEY_LENGTH);
  bytes.set(key.seed);
  bytes.set(publicKeyFromSeed(key.seed), SEED_LENGTH);
  return `${key.name}:${encodeBase64(bytes)}`;
}

/** Surrounding white space is allowed. @throws NixParseError for another form */
export function parsePublicKey(text: string): PublicKey {
  return parseNamedBytes("public key", text, PUBLIC_KEY_LENGTH);
}

export function formatPublicKey(key: PublicKey): string {
  return `${key.name}:${encodeBase64(key.bytes)}`;
}

/** @throws NixParseError for a name that Nix could not read back, or a seed that has not 32 bytes */
export function secretKeyFromSeed(name: string, seed: Uint8Array): SecretKey {
  if (seed.length !== SEED_LENGTH) {
    throw new NixParseError("secret key", `the seed has ${seed.length} bytes instead of ${SEED_LENGTH}`);
  }
  return { name: parseKeyName("secret key", name), seed: new Uint8Array(seed) };
}

export function publicKeyOf(key: SecretKey): PublicKey {
  return { name: key.name, bytes: publicKeyFromSeed(key.seed) };
}

function parseNamedBytes(format: string, text: string, byteLength: number): PublicKey {
  const trimmed = text.trim();
  const colon = trimmed.indexOf(":");
  if (colon === -1) {
    throw new NixParseError(format, 'expected "name:base64", but there is no colon');
  }
  const name = parseKeyName(format, trimmed.slice(0, colon));
  try {
    return { name, bytes: decodeBase64(trimmed.slice(colon + 1), byteLength) };
  } catch (error) {
    throw error instanceof NixParseError ? new NixParseError(format, error.reason, { cause: error }) : error;
  }
}

function parseKeyName(format: string, name: string): string {
  if (!NAME_PATTERN.test(name)) {
    // Not repeated: in a text that is wrong anyway it may be the secret.
    throw new NixParseError(format, "what stands before the colon is no key name");
  }
  return name;
}
