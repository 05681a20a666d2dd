/** What may be activated where: every type, mode and profile. */
import { describe, expect, test } from "bun:test";
import { findRefusal, type PlanOptions } from "../../../src/agent/activation/plan.ts";
import { describeSystemType, detectSystemType, SYSTEM_TYPES } from "../../../src/agent/machine/detect.ts";
import { MODES } from "../../../src/deployment.ts";
import { OLD } from "./records.ts";

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";
const OWN_PROFILE = "/nix/var/nix/profiles/per-user/ada/tools";

/** What the refusal contains; null for none. */
function expectedOf(options: PlanOptions): string | null {
  const { type, previousType, currentSystem, mode, profilePath, platform, specialisation, isRoot } = options;
  if (profilePath === SYSTEM_PROFILE && (type === "plain" || type === "home-manager")) return "takes only NixOS";
  if (previousType !== null && previousType !== type) return "a profile keeps its type";
  if (type !== "nixos" && (mode === "boot" || mode === "test")) return `has no mode ${mode}`;
  if (type !== "nixos" && type !== "darwin") return null;
  if (platform === "aarch64-linux") return "it is a system for aarch64-linux, and this machine is x86_64-linux";
  if (type === "darwin" && !isRoot) return "only root can activate";
  if (currentSystem === null) return `no ${type === "nixos" ? "NixOS" : "nix-darwin"} system that it could go back to`;
  return specialisation?.isInNew === false && mode !== "boot" ? "runs the specialisation gaming, which" : null;
}

for (const type of SYSTEM_TYPES) {
  describe(type, () => {
    for (const mode of MODES) {
      for (const previousType of [null, ...SYSTEM_TYPES]) {
        for (const profilePath of [SYSTEM_PROFILE, OWN_PROFILE]) {
          for (const currentSystem of [null, OLD]) {
            test(`${mode} over ${previousType} in ${profilePath}, running ${currentSystem}`, () => {
              for (const platform of [null, "x86_64-linux", "i686-linux", "aarch64-linux"]) {
                for (const isInNew of [null, true, false]) {
                  for (const isRoot of [true, false]) {
                    const specialisation = isInNew === null ? null : { name: "gaming", isInNew };
                    const options = {
                      ...{ type, previousType, currentSystem, mode, profilePath, platform, specialisation, isRoot },
                      machinePlatform: "x86_64-linux",
                    };
                    const expected = expectedOf(options);
                    const refusal = findRefusal(options);
                    if (expected === null) expect(refusal).toBeNull();
                    else expect(refusal).toContain(expected);
                  }
                }
              }
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
