/**
 * How a cache's key passes its trust on to the next one: a statement that the old key has signed. Whoever has pinned the
 * old key may take the new one for it, over as many statements as there have been since. Pure.
 *
 *     nixdeploy cache key statement 1\n
 *     cache name\n  old key\n  new key\n  sequence\n  milliseconds since the epoch\n
 *
 * Keys as Nix writes them, `name:base64`. The sequence counts a cache's statements from 1.
 */
import { z } from "zod";
import { decodeBase64, encodeBase64 } from "./nix/base64.ts";
import { NixParseError } from "./nix/parse-error.ts";
import { signMessage, verifyMessage } from "./nix/signature.ts";
import { formatPublicKey, type PublicKey, parsePublicKey, publicKeyOf, type SecretKey } from "./nix/signing-key.ts";

/** Of one cache, in an answer or a welcome; a new key a year would do for longer than a machine lives. */
export const KEY_STATEMENTS_MAX = 64;
const KEY_LENGTH_MAX = 400;
const SIGNATURE_BYTES = 64;

export const keyStatementSchema = z
  .object({
    cache: z.string().max(64),
    oldKey: z.string().max(KEY_LENGTH_MAX),
    newKey: z.string().max(KEY_LENGTH_MAX),
    sequence: z.number().int().positive(),
    atMs: z.number().int().nonnegative(),
    /** By the old key, base64. */
    signature: z.string().max(128),
  })
  .meta({ id: "KeyStatement" });
export type KeyStatement = z.output<typeof keyStatementSchema>;

/** The bytes that the old key signs. */
export function keyStatementMessage(statement: Omit<KeyStatement, "signature">): Uint8Array {
  const { cache, oldKey, newKey, sequence, atMs } = statement;
  const lines = ["nixdeploy cache key statement 1", cache, oldKey, newKey, sequence, atMs];
  return new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
}

export function signKeyStatement(
  oldKey: SecretKey,
  told: { readonly cache: string; readonly newKey: PublicKey; readonly sequence: number; readonly atMs: number },
): KeyStatement {
  const { cache, newKey, sequence, atMs } = told;
  const claim = {
    cache,
    oldKey: formatPublicKey(publicKeyOf(oldKey)),
    newKey: formatPublicKey(newKey),
    sequence,
    atMs,
  };
  return { ...claim, signature: encodeBase64(signMessage(oldKey.seed, keyStatementMessage(claim))) };
}

export type FollowedKeys = {
  /** The pins as they are to be from now on. */
  readonly pinned: readonly string[];
  /** What they moved by, in order. */
  readonly followed: readonly KeyStatement[];
  /** Of statements that name a pinned key and are not followed: why, a sentence each. */
  readonly refused: readonly string[];
};

/**
 * Moves each pin along the statements that its own key has signed, as far as they lead. A statement of another cache, or
 * one that no pinned key has signed, moves nothing; what was replaced once is no pin any more, so an old statement said
 * again moves nothing either. Two statements by one key that name different keys are both refused: somebody else has it.
 */
export function followKeyStatements(known: {
  readonly cache: string;
  readonly pinned: readonly string[];
  readonly statements: readonly KeyStatement[];
}): FollowedKeys {
  const followed: KeyStatement[] = [];
  const refused: string[] = [];
  const moved = known.pinned.map((pin) => {
    const seen = new Set([pin]);
    for (let key = pin; ; ) {
      const next = findNext(key, known, refused);
      // In a circle nobody says which one counts.
      if (next === null || seen.has(next.newKey)) return key;
      followed.push(next);
      seen.add(next.newKey);
      key = next.newKey;
    }
  });
  return { pinned: [...new Set(moved)], followed, refused };
}

function findNext(
  key: string,
  { cache, statements }: { readonly cache: string; readonly statements: readonly KeyStatement[] },
  refused: string[],
): KeyStatement | null {
  const about = statements.filter((statement) => statement.oldKey === key);
  const good = about.filter((statement) => {
    const why = whyNotFollow(statement, cache);
    if (why !== null) refused.push(`the statement about the key ${nameOf(key)} is refused: ${why}`);
    return why === null;
  });
  const [first] = good;
  if (first === undefined) return null;
  if (good.every(({ newKey }) => newKey === first.newKey)) return first;
  refused.push(`the key ${nameOf(key)} has signed statements for several keys: none of them is followed`);
  return null;
}

/** Pure but for the cost of a verification. @returns the end of a sentence; null when it is good */
function whyNotFollow(statement: KeyStatement, cache: string): string | null {
  if (statement.cache !== cache) return `it is about another cache (${statement.cache.slice(0, 64)})`;
  try {
    const signature = decodeBase64(statement.signature, SIGNATURE_BYTES);
    parsePublicKey(statement.newKey);
    if (verifyMessage(parsePublicKey(statement.oldKey).bytes, keyStatementMessage(statement), signature)) return null;
    return "its signature is wrong";
  } catch (error) {
    if (error instanceof NixParseError) return "it has no key or no signature of the right form";
    throw error;
  }
}

function nameOf(key: string): string {
  const colon = key.indexOf(":");
  return colon < 0 ? "?" : key.slice(0, colon);
}
