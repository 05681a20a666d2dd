/**
 * Ed25519 signatures: of store paths in Nix's form, and of plain messages.
 *
 * Two implementations on purpose: @noble/ed25519 signs store paths (small audited code), node:crypto verifies (35 times
 * faster: a closure of 3,000 paths takes a fraction of a second) and serves messages and keys, because an agent signs a
 * message at each login, and noble's table of points would stay in its memory. The tests let each check the other.
 * Content-addressed paths need no signature; whether to trust them is decided elsewhere.
 * Source: RFC 8032; Nix `src/libutil/signature/`.
 */
import { Buffer } from "node:buffer";
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign as signEd25519,
  verify as verifyEd25519,
} from "node:crypto";
import { hashes, sign as signByNoble } from "@noble/ed25519";
import { decodeBase64, encodeBase64 } from "./base64.ts";
import { formatFingerprint } from "./fingerprint.ts";
import { NixParseError } from "./parse-error.ts";
import type { PathInfo } from "./path-info.ts";
import type { PublicKey, SecretKey } from "./signing-key.ts";

const PUBLIC_KEY_LENGTH = 32;
const SEED_LENGTH = 32;
const SIGNATURE_LENGTH = 64;
/** DER of SubjectPublicKeyInfo for Ed25519 up to the raw key (RFC 8410). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
/** DER of PrivateKeyInfo for Ed25519 up to the seed (RFC 8410). */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

hashes.sha512 = (message) => new Uint8Array(createHash("sha512").update(message).digest());

export type SignatureVerifier = {
  /**
   * The name of a key that has signed the path, or null when none of the keys has.
   *
   * Signatures of unknown keys and of another form are passed over; one good signature suffices.
   */
  verify(info: PathInfo): string | null;
};

/** Keys are imported once, here. Several keys may share a name (rotation): any of them will do. */
export function createSignatureVerifier(keys: readonly PublicKey[]): SignatureVerifier {
  const keysByName = new Map<string, KeyObject[]>();
  for (const key of keys) {
    keysByName.set(key.name, [...(keysByName.get(key.name) ?? []), importPublicKey(key.bytes)]);
  }
  return {
    verify: (info) => {
      const fingerprint = Buffer.from(formatFingerprint(info));
      const good = info.signatures.find((text) => {
        const { name, signature } = splitSignature(text);
        const candidates = keysByName.get(name) ?? [];
        return signature !== null && candidates.some((key) => verifyEd25519(null, fingerprint, key, signature));
      });
      return good === undefined ? null : splitSignature(good).name;
    },
  };
}

/** `name:base64`, ready for `Sig:`. */
export function signPathInfo(info: PathInfo, secretKey: SecretKey): string {
  const signature = signByNoble(Buffer.from(formatFingerprint(info)), secretKey.seed);
  return `${secretKey.name}:${encodeBase64(signature)}`;
}

/** 64 bytes; the same for the same message. @throws when `seed` has not 32 bytes */
export function signMessage(seed: Uint8Array, message: Uint8Array): Uint8Array {
  return new Uint8Array(signEd25519(null, message, importSeed(seed)));
}

/** Never throws: keys and signatures of a wrong length verify nothing. */
export function verifyMessage(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== PUBLIC_KEY_LENGTH || signature.length !== SIGNATURE_LENGTH) {
    return false;
  }
  return verifyEd25519(null, message, importPublicKey(publicKey), signature);
}

/** 32 bytes. @throws when `seed` has not 32 bytes */
export function publicKeyFromSeed(seed: Uint8Array): Uint8Array {
  const spki = createPublicKey(importSeed(seed)).export({ format: "der", type: "spki" });
  return new Uint8Array(spki.subarray(SPKI_PREFIX.length));
}

function importSeed(seed: Uint8Array): KeyObject {
  if (seed.length !== SEED_LENGTH) throw new RangeError(`a seed of ${seed.length} bytes`);
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: "der", type: "pkcs8" });
}

function importPublicKey(bytes: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, bytes]), format: "der", type: "spki" });
}

function splitSignature(text: string): { readonly name: string; readonly signature: Uint8Array | null } {
  const colon = text.indexOf(":");
  const name = colon === -1 ? "" : text.slice(0, colon);
  try {
    return { name, signature: decodeBase64(text.slice(colon + 1), SIGNATURE_LENGTH) };
  } catch (error) {
    if (error instanceof NixParseError) {
      return { name, signature: null };
    }
    throw error;
  }
}
