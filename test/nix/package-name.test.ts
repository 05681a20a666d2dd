/** Names and versions of packages in store paths, and their order: Nix's own examples, and names as nixpkgs has them. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { compareVersions, parsePackageName } from "../../src/nix/package-name.ts";

test.each([
  ["glibc-2.38-66", "glibc", "2.38-66"],
  ["glibc-2.38-66-bin", "glibc", "2.38-66"],
  ["linux-6.6.1-modules", "linux", "6.6.1"],
  ["linux-6.6-rt", "linux", "6.6-rt"],
  ["python3.11-requests-2.31.0", "python3.11-requests", "2.31.0"],
  ["python3-3.11.6", "python3", "3.11.6"],
  ["nixos-system-nuc-24.05.20240101.abcdef0", "nixos-system-nuc", "24.05.20240101.abcdef0"],
  ["foo-0-unstable-2024-01-01", "foo", "0-unstable-2024-01-01"],
  ["bash-interactive-5.2-p15-man", "bash-interactive", "5.2-p15"],
  ["etc-hosts", "etc-hosts", ""],
  ["system-lib", "system-lib", ""],
  ["unit-nginx.service", "unit-nginx.service", ""],
  ["etc", "etc", ""],
  ["bin", "bin", ""],
  ["-1", "-1", ""],
  ["a-", "a-", ""],
] as const)("%s", (text, name, version) => {
  expect(parsePackageName(text)).toEqual({ name, version });
});

// Of Nix's manual ("builtins.compareVersions") and its tests.
test.each([
  ["1.0", "2.3", -1],
  ["2.1", "2.3", -1],
  ["2.3", "2.3", 0],
  ["2.5", "2.3", 1],
  ["3.1", "2.3", 1],
  ["2.3.1", "2.3", 1],
  ["2.3.1", "2.3a", 1],
  ["2.3pre1", "2.3", -1],
  ["2.3pre3", "2.3pre12", -1],
  ["2.3a", "2.3c", -1],
  ["2.3pre1", "2.3c", -1],
  ["2.3pre1", "2.3q", -1],
  ["1.9", "1.10", -1],
  ["", "1", -1],
] as const)("%s against %s: %d", (a, b, order) => {
  expect([compareVersions(a, b), compareVersions(b, a)]).toEqual([order, order === 0 ? 0 : -order]);
});

test("any two versions have one order, whoever is asked first", () => {
  const version = fc.stringMatching(/^[0-9a-z.-]{0,12}$/);
  fc.assert(
    fc.property(version, version, (a, b) => {
      const order = compareVersions(a, b);
      expect(compareVersions(b, a)).toBe(order === 0 ? 0 : -order);
      expect(compareVersions(a, a)).toBe(0);
    }),
  );
});
