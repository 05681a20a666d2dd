/**
 * How a key that a device trusts already brings in another cache's keys: a voucher that it has signed. Who has pinned the
 * voucher's key takes the named keys for that cache, instead of what was vouched for before. Pure.
 *
 *     nixdeploy cache key voucher 1\n
 *     cache name\n  voucher's key\n  milliseconds since the epoch\n  key\n  key\n …
 *
 * Keys as Nix writes them, `name:base64`. Of several vouchers for a cache the newest counts, and none that is older than
 * what was taken before, so that nobody can bring keys back that were given up. Another key of the same cache is not
 * brought in here but by `key-statement.ts`.
 */
import { z } from "zod";
import { decodeBase64, encodeBase64 } from "./nix/base64.ts";
import { NixParseError } from "./nix/parse-error.ts";
import { signMessage, verifyMessage } from "./nix/signature.ts";
import { formatPublicKey, parsePublicKey, publicKeyOf, type SecretKey } from "./nix/signing-key.ts";

/** In a welcome: more than twice as many as a workspace may have caches. */
export const KEY_VOUCHERS_MAX = 128;
const KEYS_MAX = 16;
const KEY_LENGTH_MAX = 400;
const SIGNATURE_BYTES = 64;

export const keyVoucherSchema = z
  .object({
    cache: z.string().max(64),
    /** What may be trusted for what that cache serves, and nothing else may. */
    keys: z.array(z.string().max(KEY_LENGTH_MAX)).min(1).max(KEYS_MAX),
    /** Whose word it is. */
    by: z.string().max(KEY_LENGTH_MAX),
    atMs: z.number().int().nonnegative(),
    /** By that key, base64. */
    signature: z.string().max(128),
  })
  .meta({ id: "KeyVoucher" });
export type KeyVoucher = z.output<typeof keyVoucherSchema>;

/** The bytes that are signed. */
export function keyVoucherMessage({ cache, by, atMs, keys }: Omit<KeyVoucher, "signature">): Uint8Array {
  const lines = ["nixdeploy cache key voucher 1", cache, by, atMs, ...keys];
  return new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
}

export function signKeyVoucher(
  secretKey: SecretKey,
  told: { readonly cache: string; readonly keys: readonly string[]; readonly atMs: number },
): KeyVoucher {
  const { cache, keys, atMs } = told;
  const claim = { cache, keys: [...keys], by: formatPublicKey(publicKeyOf(secretKey)), atMs };
  return { ...claim, signature: encodeBase64(signMessage(secretKey.seed, keyVoucherMessage(claim))) };
}

/** @returns the end of a sentence; null when its own key has signed it and it names keys */
export function whyNotVouched(voucher: KeyVoucher): string | null {
  try {
    for (const key of voucher.keys) parsePublicKey(key);
    const signature = decodeBase64(voucher.signature, SIGNATURE_BYTES);
    const isGood = verifyMessage(parsePublicKey(voucher.by).bytes, keyVoucherMessage(voucher), signature);
    return isGood ? null : "its signature is wrong";
  } catch (error) {
    if (error instanceof NixParseError) return "it has no key or no signature of the right form";
    throw error;
  }
}

/** What a device remembers of the voucher that it took last for a cache. */
export const takenVoucherSchema = z.object({ keys: z.array(z.string()), by: z.string(), atMs: z.number() });
export type TakenVoucher = z.output<typeof takenVoucherSchema>;

export type VoucherChoice =
  | { readonly kind: "taken"; readonly voucher: TakenVoucher }
  /** Nothing new. */
  | { readonly kind: "none" }
  /** `why` is a sentence without its end. */
  | { readonly kind: "refused"; readonly why: string };

/** Which of the vouchers for a cache counts now, if any. */
export function chooseVoucher(known: {
  readonly cache: string;
  readonly vouchers: readonly KeyVoucher[];
  /** Whose word counts on this device. */
  readonly trusted: readonly string[];
  readonly taken: TakenVoucher | null;
}): VoucherChoice {
  const { cache, trusted, taken } = known;
  const about = known.vouchers.filter((voucher) => voucher.cache === cache && trusted.includes(voucher.by));
  const [newest, ...others] = about.toSorted((a, b) => b.atMs - a.atMs);
  if (newest === undefined) return { kind: "none" };
  const refuse = (why: string): VoucherChoice => ({
    ...{ kind: "refused", why: `the voucher for the keys of the cache ${cache} is refused: ${why}` },
  });
  const fault = whyNotVouched(newest);
  if (fault !== null) return refuse(fault);
  const isSame = (other: Pick<KeyVoucher, "keys">) => other.keys.join("\n") === newest.keys.join("\n");
  if (others.some((other) => other.atMs === newest.atMs && !isSame(other))) {
    return refuse("there are two of the same time that name different keys");
  }
  const { keys, by, atMs } = newest;
  if (taken === null || atMs > taken.atMs) return { kind: "taken", voucher: { keys, by, atMs } };
  if (isSame(taken) && atMs === taken.atMs) {
    // The same word by another key: whose it was before may count no more.
    return trusted.includes(taken.by) ? { kind: "none" } : { kind: "taken", voucher: { keys, by, atMs } };
  }
  return isSame(taken) ? { kind: "none" } : refuse("a newer one was taken before");
}
