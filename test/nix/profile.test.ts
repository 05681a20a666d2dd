import { describe, expect, test } from "bun:test";
import { NixParseError } from "../../src/nix/parse-error.ts";
import { formatGenerationLink, parseGenerationLink, resolveProfilePath } from "../../src/nix/profile.ts";

describe("generation links", () => {
  test.each([
    ["system-42-link", "system", 42],
    ["home-manager-1-link", "home-manager", 1],
    ["a-1-link-2-link", "a-1-link", 2],
    ["my-7-profile-9007199254740991-link", "my-7-profile", Number.MAX_SAFE_INTEGER],
  ])("%s is generation of %s", (text, profile, generation) => {
    expect(parseGenerationLink(text)).toEqual({ profile, generation });
    expect(formatGenerationLink({ profile, generation })).toBe(text);
  });

  test.each([
    "system",
    "system-link",
    "system--link",
    "system-0-link",
    "system-042-link",
    "system-1.5-link",
    "system-1e3-link",
    "system-9007199254740993-link",
    "system-42-link.tmp",
    "system-42-link\n",
    "-42-link",
    "dir/system-42-link",
    "",
  ])("%p is none", (text) => {
    expect(parseGenerationLink(text)).toBeNull();
  });
});

describe("profile paths", () => {
  const root = { isRoot: true, home: "/root", stateHome: null };
  const user = { isRoot: false, home: "/home/ann", stateHome: null };

  test.each([
    [{ ...root, profile: null }, "/nix/var/nix/profiles/system"],
    [{ ...root, profile: "edge" }, "/nix/var/nix/profiles/edge"],
    [{ ...root, profile: "/nix/var/nix/profiles/per-user/ann/x" }, "/nix/var/nix/profiles/per-user/ann/x"],
    [{ ...root, stateHome: "/state", profile: "edge" }, "/nix/var/nix/profiles/edge"],
    [{ ...user, profile: null }, "/home/ann/.local/state/nix/profiles/home-manager"],
    [{ ...user, profile: "system" }, "/home/ann/.local/state/nix/profiles/system"],
    [{ ...user, stateHome: "/state/", profile: "web" }, "/state/nix/profiles/web"],
    [{ ...user, stateHome: "", profile: "web" }, "/home/ann/.local/state/nix/profiles/web"],
    [{ ...user, stateHome: "relative", profile: "web" }, "/home/ann/.local/state/nix/profiles/web"],
    [{ ...user, home: "/home/ann/", profile: "web" }, "/home/ann/.local/state/nix/profiles/web"],
    [{ ...user, home: "/", profile: "web" }, "/.local/state/nix/profiles/web"],
  ])("%j is %s", (options, expected) => {
    expect(resolveProfilePath(options)).toBe(expected);
  });

  test.each([
    ["an empty name", ""],
    ["a relative path", "profiles/web"],
    ["the parent directory", ".."],
    ["a hidden name", ".web"],
    ["the root directory", "/"],
    ["a path with a parent directory", "/nix/var/../etc/x"],
    ["a path with a trailing slash", "/nix/var/nix/profiles/"],
    ["a path with a doubled slash", "/nix//x"],
    ["a path with a NUL", "/nix/\0"],
    ["a name with a space", "my web"],
    ["a generation", "system-42-link"],
    ["the path of a generation", "/nix/var/nix/profiles/system-42-link"],
    ["an overlong name", "x".repeat(200)],
    ["an overlong path", `/${"x".repeat(5000)}`],
  ])("%s is refused", (_what, profile) => {
    expect(() => resolveProfilePath({ ...root, profile })).toThrow(NixParseError);
  });

  test("a home directory that is not absolute is refused", () => {
    expect(() => resolveProfilePath({ ...user, home: "", profile: null })).toThrow(NixParseError);
  });
});
