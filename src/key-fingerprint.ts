/** Fingerprints of agents' keys, for people to compare: `SHA256:base64` without padding, as OpenSSH prints its own. */
import { createHash } from "node:crypto";

const FINGERPRINT = /^SHA256:[A-Za-z0-9+/]{43}$/;

/** @param publicKey raw, 32 bytes */
export function formatKeyFingerprint(publicKey: Uint8Array): string {
  return `SHA256:${createHash("sha256").update(publicKey).digest("base64").replace(/=+$/, "")}`;
}

/** @throws Error for another form */
export function parseKeyFingerprint(text: string): string {
  if (FINGERPRINT.test(text)) return text;
  throw new Error("a fingerprint is SHA256: and 43 letters, digits, '+' or '/', as the agent prints it");
}
