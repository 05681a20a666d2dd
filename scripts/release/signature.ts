/**
 * SHA256SUMS and its detached signature: 64 raw bytes of Ed25519 over the file, which OpenSSL 3 verifies:
 *
 *   openssl pkeyutl -verify -pubin -inkey release-key.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";

export const SUMS_NAME = "SHA256SUMS";
export const SIGNATURE_NAME = "SHA256SUMS.sig";

export type SummedFile = { readonly name: string; readonly contents: Uint8Array };

/** What `sha256sum --check` reads, sorted by name. */
export function formatSums(files: readonly SummedFile[]): string {
  return [...files]
    .sort((left, right) => (left.name < right.name ? -1 : 1))
    .map(({ name, contents }) => `${createHash("sha256").update(contents).digest("hex")}  ${name}\n`)
    .join("");
}

/**
 * The key that signs, from PEM (PKCS#8). It must be the one whose public half users have.
 * @param publicPem the published half (SubjectPublicKeyInfo)
 * @throws Error without a word of the key
 */
export function parseReleaseKey(privatePem: string, publicPem: string): KeyObject {
  const key = parsePem(() => createPrivateKey(privatePem), "the release key is no PEM of an unencrypted private key");
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`the release key is ${key.asymmetricKeyType}, not ed25519`);
  const published = parsePem(() => createPublicKey(publicPem), "the published key is no PEM of a public key");
  if (!createPublicKey(key).equals(published)) {
    throw new Error("the release key is not the one whose public half is published");
  }
  return key;
}

export function signSums(sums: string, key: KeyObject): Buffer {
  return sign(null, Buffer.from(sums), key);
}

export function verifySums(sums: string, signature: Uint8Array, publicPem: string): boolean {
  return verify(null, Buffer.from(sums), createPublicKey(publicPem), signature);
}

function parsePem(parse: () => KeyObject, message: string): KeyObject {
  try {
    return parse();
  } catch {
    // Not kept as a cause: it may hold the text.
    throw new Error(message);
  }
}
