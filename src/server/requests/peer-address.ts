/**
 * Whose address a request has. Behind a proxy every connection is the proxy's, so the proxy's word counts for the part
 * that it wrote itself: `X-Forwarded-For` is read from its end, over the proxies that are trusted, to the first address
 * that is none of them. What stands further left was sent by that address and may be anything.
 */
import { BlockList, isIP } from "node:net";

export type TrustedProxies = { contains(address: string): boolean };

/** What is trusted when nobody says otherwise: whatever runs on this host may be its proxy. */
export const LOOPBACK = ["127.0.0.0/8", "::1"] as const;
/** Hops that are looked at; a longer list is cut off here. */
const HOPS_MAX = 16;
const HEADER_LENGTH_MAX = 2_048;
const IPV4_IN_IPV6 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;
const PREFIX_MAX = { ipv4: 32, ipv6: 128 } as const;

/** @throws Error for a text that is neither an address nor a network such as `10.0.0.0/8` */
export function parseTrustedProxies(texts: readonly string[]): TrustedProxies {
  const list = new BlockList();
  for (const text of texts) {
    const [address = "", prefix, ...more] = text.split("/");
    const family = familyOf(address);
    const bits = prefix === undefined ? null : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    if (family === null || more.length > 0 || (bits !== null && !(bits <= PREFIX_MAX[family]))) {
      throw new Error("it must be an address or a network, such as 192.0.2.7 or 10.0.0.0/8");
    }
    if (bits === null) list.addAddress(address, family);
    else list.addSubnet(address, bits, family);
  }
  return {
    contains(address) {
      const family = familyOf(address);
      return family !== null && list.check(address, family);
    },
  };
}

/**
 * @param connection.peer the other end of the connection
 * @returns an address in the form that the connection or the proxy gave it
 */
export function readClientAddress(
  connection: { readonly peer: string; readonly forwardedFor: string | null },
  trusted: TrustedProxies,
): string {
  let address = plainAddress(connection.peer);
  const hops = (connection.forwardedFor ?? "").slice(-HEADER_LENGTH_MAX).split(",").reverse().slice(0, HOPS_MAX);
  for (const hop of hops) {
    if (!trusted.contains(address)) return address;
    const before = plainAddress(hop.trim());
    if (isIP(before) === 0) return address;
    address = before;
  }
  return address;
}

/** Without port and brackets; IPv4 as IPv4, however it is written. */
function plainAddress(text: string): string {
  const inner = /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1] ?? /^([\d.]+):\d+$/.exec(text)?.[1] ?? text;
  return IPV4_IN_IPV6.exec(inner)?.[1] ?? inner;
}

function familyOf(address: string): "ipv4" | "ipv6" | null {
  const version = isIP(address);
  if (version === 0) return null;
  return version === 4 ? "ipv4" : "ipv6";
}
