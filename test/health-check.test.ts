/** What a health check may look like, from outside the device and from its own configuration. */
import { describe, expect, test } from "bun:test";
import { parseFile } from "../src/agent/health/own-health-checks.ts";
import { NixdeployError } from "../src/errors.ts";
import { type HealthCheck, parseOwnHealthChecks, parseSpecHealthChecks, storePathOf } from "../src/health-check.ts";
import { storePathFor } from "./support/tiny-path.ts";

const SMOKE = storePathFor("smoke");
const DEFAULTS = { periodSeconds: 2, timeoutSeconds: 10 };

const VALID: readonly (readonly [given: object, filled: object])[] = [
  [{ kind: "tcp", port: 22 }, { host: "127.0.0.1" }],
  [{ kind: "tcp", port: 65_535, host: "::1" }, {}],
  [{ kind: "tcp", port: 1, host: "db.example.org", attempts: 1 }, {}],
  [{ kind: "http", url: "http://localhost:8080/healthz?x=1" }, { followRedirects: false }],
  [{ kind: "http", url: "https://[::1]/", status: [200, 401], followRedirects: true }, {}],
  [{ kind: "units", units: ["nginx.service", "getty@tty1.service", "a\\x2db.mount"] }, {}],
  [{ kind: "command", command: [SMOKE] }, {}],
  [
    {
      kind: "command",
      command: [`${SMOKE}/bin/smoke`, "", "$(reboot)", "a b"],
      periodSeconds: 0.5,
      timeoutSeconds: 60,
    },
    {},
  ],
];

test.each(VALID)("%j is one, with its defaults filled in, and again when it is parsed again", (given, filled) => {
  const check = { name: "it", ...DEFAULTS, ...given, ...filled };
  const parsed = parseSpecHealthChecks([{ name: "it", ...given }], "checks");
  expect(parsed).toEqual({ kind: "checks", checks: [check as HealthCheck] });
  expect(parseSpecHealthChecks(JSON.parse(JSON.stringify([check])), "checks")).toEqual(parsed);
});

const TCP = { name: "it", kind: "tcp", port: 1 };
const HTTP = { name: "it", kind: "http" };
const UNITS = { name: "it", kind: "units" };
const COMMAND = { name: "it", kind: "command" };
const FAULTS: readonly (readonly [check: unknown, fault: string])[] = [
  [7, "checks → 1: expected object"],
  [null, "checks → 1: expected object"],
  [{ kind: "tcp", port: 1 }, 'checks → 1 → "name": it is missing'],
  [{ ...TCP, name: "" }, 'checks → 1 ("") → "name": expected 1 to 64'],
  [{ ...TCP, name: "a\nb" }, 'checks → 1 ("a\\nb") → "name": expected 1 to 64'],
  [{ ...TCP, kind: "ping" }, '"kind": expected units, tcp, http or command'],
  [{ name: "it" }, '"kind": expected units, tcp, http or command'],
  [{ ...TCP, prot: 1 }, 'checks → 1 ("it"): "prot" is not known here'],
  [{ ...TCP, a: 1, b: 1, c: 1, d: 1, e: 1, f: 1 }, '"a", "b", "c", "d", "e" and 1 more are not known here'],
  ...[0, 65_536, 1.5, "22"].map((port) => [{ ...TCP, port }, '"port": '] as const),
  ...["a b", "-x", "http://x", "", "x/y"].map((host) => [{ ...TCP, host }, '"host": expected a host'] as const),
  ...[0, 3_601, -1, "2s", Number.NaN].map((periodSeconds) => [{ ...TCP, periodSeconds }, '"periodSeconds": '] as const),
  [{ ...TCP, timeoutSeconds: 0.01 }, '"timeoutSeconds": '],
  ...[0, 1.5, 10_001].map((attempts) => [{ ...TCP, attempts }, '"attempts": '] as const),
  ...["x", "ftp://x/", "file:///etc/passwd", "http://me:secret@x/"].map(
    (url) => [{ ...HTTP, url }, '"url": expected an http: or https: URL'] as const,
  ),
  [{ ...HTTP, url: "http://x/", status: 200 }, '"status": expected a list of 1 to 50'],
  [{ ...HTTP, url: "http://x/", status: [99] }, '"status" → 1: '],
  [{ ...UNITS, units: [] }, '"units": expected a list of 1 to 100'],
  ...["nginx", "--now", "a/b.service", "-x.service\n"].map(
    (unit) => [{ ...UNITS, units: [unit] }, '"units" → 1: expected a unit'] as const,
  ),
  [{ ...COMMAND, command: [] }, '"command": expected a list of 1 to 100'],
  [{ ...COMMAND, command: `${SMOKE}/bin/x -y` }, '"command": expected a list of 1 to 100'],
  [{ ...COMMAND, command: [SMOKE, "a\0b"] }, '"command" → 2: it holds a NUL'],
  [
    { ...COMMAND, command: [SMOKE, ..."abcde".split("").map((text) => text.repeat(4_000))] },
    "at most 16384 characters",
  ],
  ...["smoke", "./smoke", "", "/", `${SMOKE}/../x`, `${SMOKE}//x`, `${SMOKE}/`].map(
    (program) => [{ ...COMMAND, command: [program] }, "expected the absolute path of a program first"] as const,
  ),
  ...["/bin/sh", "/nix/store/x", "/nix/store", "/nix/var/nix/profiles/x"].map(
    (program) => [{ ...COMMAND, command: [program] }, "must be a file of a store path"] as const,
  ),
];

test.each(FAULTS)("%j is none", (check, fault) => {
  const parsed = parseSpecHealthChecks([check], "checks");
  expect(parsed).toEqual({ kind: "faults", faults: [expect.stringContaining(fault)] });
});

test("faults of several are told at once, and what is too many is not looked at", () => {
  const parsed = parseSpecHealthChecks([TCP, { ...TCP, port: 0, x: 1 }, 5], "checks");
  expect(parsed).toMatchObject({ faults: [expect.anything(), expect.anything(), expect.anything()] });
  const many = parseSpecHealthChecks(Array(51).fill(5), "checks");
  expect(many).toEqual({ kind: "faults", faults: ["checks: expected a list of at most 50 health checks"] });
});

test("a program of the device is one only in its own configuration", () => {
  const check = { ...COMMAND, command: ["/run/current-system/sw/bin/curl", "-f", "http://x/"] };
  expect(parseOwnHealthChecks([check], "checks").kind).toBe("checks");
  expect(parseSpecHealthChecks([check], "checks").kind).toBe("faults");
});

test("only a command from the store needs something of the store", () => {
  const own = parseOwnHealthChecks(
    [TCP, { ...COMMAND, name: "a", command: [`${SMOKE}/bin/x`] }, { ...COMMAND, name: "b", command: ["/bin/true"] }],
    "checks",
  );
  expect(own.kind === "checks" && own.checks.map(storePathOf)).toEqual([null, SMOKE, null]);
});

describe("the device's own file", () => {
  const refused: readonly (readonly [text: string, fault: string])[] = [
    ["", "it is not JSON"],
    ["[]", "it is not an object"],
    ["null", "it is not an object"],
    ["{}", '"healthChecks": expected a list of at most 50'],
    [JSON.stringify({ healthChecks: [TCP], helthChecks: [] }), '"helthChecks" is not known here'],
    [JSON.stringify({ healthChecks: [TCP, TCP] }), 'two health checks are called "it"'],
    [JSON.stringify({ healthChecks: [{ ...TCP, port: 0 }] }), '"healthChecks" → 1 ("it") → "port": '],
  ];
  test.each(refused)("that is %j is refused", (text, fault) => {
    try {
      parseFile(text, "/etc/checks.json");
      throw new Error("it was taken");
    } catch (error) {
      if (!(error instanceof NixdeployError)) throw error;
      expect([error.kind, error.message]).toEqual(["usage", expect.stringContaining("/etc/checks.json")]);
      expect(error.details).toEqual([expect.stringContaining(fault)]);
    }
  });
});
