/** What may be activated where: every type, mode and profile. */
import { describe, expect, test } from "bun:test";
import { describeSystemType, detectSystemType, SYSTEM_TYPES } from "../../../src/agent/activation/detect.ts";
import { findRefusal, type PlanOptions } from "../../../src/agent/activation/plan.ts";
import { MODES } from "../../../src/deployment.ts";
import { OLD } from "./records.ts";

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";
const OWN_PROFILE = "/nix/var/nix/profiles/per-user/ada/tools";

/** What the refusal contains; null for none. */
function expectedOf({ type, previousType, currentSystem, mode, profilePath }: PlanOptions): string | null {
  if (profilePath === SYSTEM_PROFILE && (type === "plain" || type === "home-manager")) return "takes only NixOS";
  if (previousType !== null && previousType !== type) return "a profile keeps its type";
  if (type === "darwin" || type === "home-manager") return "does not support yet";
  if (type === "nixos") return currentSystem === null ? "no NixOS system that it could go back to" : null;
  return mode === "boot" || mode === "test" ? `has no mode ${mode}` : null;
}

for (const type of SYSTEM_TYPES) {
  describe(type, () => {
    for (const mode of MODES) {
      for (const previousType of [null, ...SYSTEM_TYPES]) {
        for (const profilePath of [SYSTEM_PROFILE, OWN_PROFILE]) {
          for (const currentSystem of [null, OLD]) {
            const options = { type, previousType, currentSystem, mode, profilePath };
            const expected = expectedOf(options);
            test(`${mode} over ${previousType} in ${profilePath}, running ${currentSystem}: ${expected ?? "goes on"}`, () => {
              const refusal = findRefusal(options);
              if (expected === null) expect(refusal).toBeNull();
              else expect(refusal).toContain(expected);
            });
          }
        }
      }
    }
  });
}

test("the type is told by the names at the top; without any it is a plain package", () => {
  const markers = {
    "nixos-version": "nixos",
    "darwin-version": "darwin",
    "darwin-version.json": "darwin",
    "hm-version": "home-manager",
    "gen-version": "home-manager",
    bin: "plain",
  } as const;
  for (const [name, type] of Object.entries(markers)) expect(detectSystemType(new Set(["bin", name]))).toBe(type);
  expect(detectSystemType(new Set())).toBe("plain");
  for (const type of SYSTEM_TYPES) expect(describeSystemType(type)).toStartWith("a ");
});
