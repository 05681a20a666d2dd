/**
 * Token text: `nd_<kind>_<id>_<secret>`. The secret is 256 random bits in base 62 (43 characters) followed by a
 * 6-character checksum (CRC-32 in base 62) of everything before it, so that a secret scanner can tell a leaked token
 * from a look-alike without asking anybody. Pure; what a coordinator stores of it is `secretSha256`.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { parseTokenId, type TokenId } from "./names.ts";

export const TOKEN_KINDS = ["admin", "activate", "push", "read", "agent"] as const;
export type TokenKind = (typeof TOKEN_KINDS)[number];

export type Token = { readonly kind: TokenKind; readonly id: TokenId; readonly secret: string };

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_BYTES = 32;
const SECRET_LENGTH = 43;
const CHECKSUM_LENGTH = 6;
const TOKEN = /^nd_(admin|activate|push|read|agent)_([0-9a-z]{16})_([0-9A-Za-z]{49})$/;

/** @param secretBytes 32 random bytes */
export function formatToken(kind: TokenKind, id: TokenId, secretBytes: Uint8Array): string {
  if (secretBytes.length !== SECRET_BYTES) throw new Error(`a token's secret has ${SECRET_BYTES} bytes`);
  let value = 0n;
  for (const byte of secretBytes) value = (value << 8n) | BigInt(byte);
  const head = `nd_${kind}_${id}_${formatBase62(value, SECRET_LENGTH)}`;
  return head + checksum(head);
}

/** @returns null when the text is no token or its checksum is wrong; nothing is said about whether it is valid */
export function parseToken(text: string): Token | null {
  const match = TOKEN.exec(text);
  const [, kind, id, secret] = match ?? [];
  if (kind === undefined || id === undefined || secret === undefined) return null;
  const head = text.slice(0, -CHECKSUM_LENGTH);
  if (checksum(head) !== text.slice(-CHECKSUM_LENGTH)) return null;
  return { kind: kind as TokenKind, id: parseTokenId(id), secret: secret.slice(0, SECRET_LENGTH) };
}

/** What a token of any version looks like: kinds may be added. */
const TOKEN_OF_ANY_KIND = /^nd_[a-z]+_[0-9a-z]{16}_[0-9A-Za-z]{49}$/;

/** Why the text cannot be a token at all, as the end of a sentence; null when it may be one. Repeats nothing of it. */
export function describeTokenFault(text: string): string | null {
  if (!TOKEN_OF_ANY_KIND.test(text)) {
    return text.startsWith("nd_") ? "it is no whole token" : "it is no token: tokens begin with nd_";
  }
  const isIntact = checksum(text.slice(0, -CHECKSUM_LENGTH)) === text.slice(-CHECKSUM_LENGTH);
  return isIntact ? null : "a character of it is wrong (its checksum does not fit)";
}

const LOOKS_LIKE_SECRET = /\bnd_(?:admin|activate|push|read|agent)_|\bnda_[0-9a-z]{16}_|:[A-Za-z0-9+/]{86}==/;

/** Whether a text has a token or the secret half of a signing key in it, which no message may repeat. */
export function looksLikeSecret(text: string): boolean {
  return LOOKS_LIKE_SECRET.test(text);
}

/** The 32 bytes that a coordinator stores instead of the token. */
export function secretSha256(secret: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(secret, "latin1").digest());
}

function checksum(head: string): string {
  return formatBase62(BigInt(crc32(head)), CHECKSUM_LENGTH);
}

function formatBase62(value: bigint, length: number): string {
  let text = "";
  for (let rest = value; text.length < length; rest /= 62n) text = `${BASE62[Number(rest % 62n)]}${text}`;
  return text;
}
