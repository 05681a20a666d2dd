/**
 * How many credentials that are no good an address may send. A limit on guesses is not what keeps secrets of 256 bits;
 * it keeps one that floods from costing much and from filling the log, and tells whoever goes on with a revoked token to
 * slow down. So a good credential is always taken, from wherever it comes: no stranger behind the same address translator
 * can lock anybody out.
 *
 * A bucket for each address (IPv6: each /64, which is what one subscriber has): so many failures at once, then one more
 * for each interval. Of so many addresses at most; the one that failed longest ago is forgotten first.
 */
import { isIPv6 } from "node:net";
import type { Clock } from "../../runtime.ts";

export type FailedLogins = {
  /**
   * Notes a failure.
   * @param address null: on this host, never limited
   * @returns after how long another one is answered as usual; null when this one is within the limit
   */
  note(address: string | null): number | null;
};

export const FAILURES_AT_ONCE = 30;
export const FAILURE_INTERVAL_MS = 2_000;
export const ADDRESSES_MAX = 10_000;

/** When the bucket will be empty again, monotonic milliseconds. */
type Buckets = Map<string, number>;

export function createFailedLogins(clock: Clock): FailedLogins {
  const buckets: Buckets = new Map();
  return {
    note(address) {
      if (address === null) return null;
      const key = networkOf(address);
      const nowMs = clock.monotonicMs();
      const emptyMs = Math.max(nowMs, buckets.get(key) ?? nowMs) + FAILURE_INTERVAL_MS;
      const overMs = emptyMs - nowMs - FAILURES_AT_ONCE * FAILURE_INTERVAL_MS;
      // Those that are too many do not count, or whoever never stops would never be answered as usual again.
      buckets.delete(key);
      buckets.set(key, overMs > 0 ? emptyMs - FAILURE_INTERVAL_MS : emptyMs);
      const oldest = buckets.size > ADDRESSES_MAX ? buckets.keys().next() : null;
      if (oldest !== null && oldest.done !== true) buckets.delete(oldest.value);
      return overMs > 0 ? overMs : null;
    },
  };
}

/** `2001:db8:1:2::/64` for IPv6, the address itself for all else. */
function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail = ""] = address.split("::");
  const front = head.split(":").filter((group) => group !== "");
  const back = tail.split(":").filter((group) => group !== "");
  const isShort = address.includes("::");
  const zeros = isShort ? Array.from({ length: Math.max(0, 8 - front.length - back.length) }, () => "0") : [];
  const groups = [...front, ...zeros, ...back].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}
