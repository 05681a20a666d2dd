/** Whose word about an address counts. */
import { describe, expect, test } from "bun:test";
import { LOOPBACK, parseTrustedProxies, readClientAddress } from "../../../src/server/requests/peer-address.ts";

const CASES: readonly (readonly [trusted: readonly string[], peer: string, header: string | null, address: string])[] =
  [
    [LOOPBACK, "127.0.0.1", "203.0.113.9", "203.0.113.9"],
    [LOOPBACK, "::1", "203.0.113.9", "203.0.113.9"],
    [LOOPBACK, "::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"],
    [LOOPBACK, "127.0.0.1", null, "127.0.0.1"],
    [LOOPBACK, "127.0.0.1", "", "127.0.0.1"],
    [LOOPBACK, "127.0.0.1", "unknown", "127.0.0.1"],
    // The client wrote the first, the proxy the second.
    [LOOPBACK, "127.0.0.1", "10.9.9.9, 203.0.113.9", "203.0.113.9"],
    [LOOPBACK, "198.51.100.1", "203.0.113.9", "198.51.100.1"],
    [[], "127.0.0.1", "203.0.113.9", "127.0.0.1"],
    [["10.0.0.0/8"], "10.1.2.3", "203.0.113.9, 10.7.7.7", "203.0.113.9"],
    [["10.0.0.0/8"], "10.1.2.3", "10.7.7.7", "10.7.7.7"],
    [["2001:db8::/32"], "2001:db8::1", "[2001:dead::2]:4711", "2001:dead::2"],
    [["192.0.2.7"], "192.0.2.7", "203.0.113.9:4711", "203.0.113.9"],
    [["192.0.2.7"], "192.0.2.8", "203.0.113.9", "192.0.2.8"],
    [LOOPBACK, "127.0.0.1", `${"127.0.0.1,".repeat(5_000)}`, "127.0.0.1"],
  ];

describe("the address of a client", () => {
  for (const [trusted, peer, forwardedFor, address] of CASES) {
    test(`${trusted.join(" ") || "nobody"} trusted, from ${peer}, ${String(forwardedFor).slice(0, 40)}`, () => {
      expect(readClientAddress({ peer, forwardedFor }, parseTrustedProxies(trusted))).toBe(address);
    });
  }

  for (const text of ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "::1/129", "1.2.3", "/8"]) {
    test(`"${text}" is no proxy`, () => {
      expect(() => parseTrustedProxies([text])).toThrow("it must be an address or a network");
    });
  }
});
