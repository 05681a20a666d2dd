/** What a path is, what is done with it, and what the ends of programs mean: tables. */
import { describe, expect, test } from "bun:test";
import { detectSystemType } from "../../../src/agent/activation/detect.ts";
import { judgeSwitch } from "../../../src/agent/activation/judge.ts";
import { type PlanActivationOptions, planActivation } from "../../../src/agent/activation/plan.ts";
import type { ProgramExit } from "../../../src/agent/process.ts";
import { storePathFor } from "../../support/tiny-path.ts";

describe("the type", () => {
  for (const [names, type] of [
    [["bin", "nixos-version", "sw"], "nixos"],
    [["darwin-version"], "darwin"],
    [["darwin-version.json"], "darwin"],
    [["hm-version"], "home-manager"],
    [["gen-version", "activate"], "home-manager"],
    [["bin", "share"], "plain"],
    [[], "plain"],
  ] as const) {
    test(`${names.join(", ") || "a file"} is ${type}`, () => expect(detectSystemType(new Set(names))).toBe(type));
  }
});

describe("the steps", () => {
  const SYSTEM = "/nix/var/nix/profiles/system";
  const script = storePathFor("check");
  const plan = (changes: Partial<PlanActivationOptions>) => {
    const result = planActivation({
      type: "nixos",
      previousType: null,
      mode: "switch",
      profilePath: SYSTEM,
      rollbackScript: null,
      ...changes,
    });
    return result.kind === "refused"
      ? result.reason
      : result.steps.map((step) => (step.kind === "switch" ? step.action : step.kind)).join(" ");
  };
  const plain = { type: "plain", profilePath: "/p" } as const;
  for (const [what, changes, expected] of [
    ["nixos switch", {}, "set-profile switch"],
    ["nixos boot", { mode: "boot" }, "set-profile boot"],
    ["nixos test", { mode: "test" }, "test"],
    ["nixos dry-activate", { mode: "dry-activate" }, "dry-activate"],
    ["nixos switch with a script", { rollbackScript: script }, "set-profile switch check-script"],
    ["nixos test with a script", { mode: "test", rollbackScript: script }, "test check-script"],
    ["nixos boot with a script", { mode: "boot", rollbackScript: script }, "set-profile boot"],
    ["plain switch", plain, "set-profile"],
    ["plain boot", { ...plain, mode: "boot" }, "set-profile"],
    ["plain test", { ...plain, mode: "test" }, ""],
    ["plain dry-activate", { ...plain, mode: "dry-activate" }, ""],
    ["plain switch with a script", { ...plain, rollbackScript: script }, "set-profile check-script"],
  ] as const) {
    test(what, () => expect(plan(changes)).toBe(expected));
  }
  for (const [what, changes, reason] of [
    ["a plain package as system", { type: "plain" }, "takes only NixOS or nix-darwin"],
    ["a Home Manager generation as system", { type: "home-manager" }, "takes only NixOS or nix-darwin"],
    ["another type than before", { ...plain, previousType: "nixos" }, "a profile keeps its type"],
    ["nix-darwin", { type: "darwin" }, "does not support yet"],
    ["Home Manager", { type: "home-manager", profilePath: "/p" }, "does not support yet"],
  ] as const) {
    test(`${what} is refused`, () => expect(plan(changes)).toContain(reason));
  }
});

describe("the end of switch-to-configuration", () => {
  const old = storePathFor("old");
  const fresh = storePathFor("new");
  const code = (value: number): ProgramExit => ({ kind: "exited", code: value });
  const cases: readonly [
    action: "switch" | "boot" | "test" | "dry-activate",
    ProgramExit,
    moved: boolean,
    expected: string,
  ][] = [
    ["switch", code(0), true, "good"],
    ["switch", code(4), true, "degraded keep"],
    ["test", code(4), true, "degraded keep"],
    ["switch", code(100), true, "degraded keep"],
    ["switch", code(11), false, "failed back"],
    ["boot", code(11), false, "failed back"],
    ["switch", code(1), false, "failed back"],
    ["switch", code(1), true, "degraded back"],
    ["switch", code(2), true, "degraded back"],
    ["switch", code(3), false, "failed back"],
    ["switch", code(255), true, "degraded back"],
    ["boot", code(1), false, "failed back"],
    ["boot", code(4), false, "failed back"],
    ["dry-activate", code(1), false, "failed back"],
    ["dry-activate", { kind: "timed-out", afterMs: 60_000 }, false, "failed back"],
    ["switch", { kind: "killed", signal: "SIGKILL" }, false, "failed back"],
    ["switch", { kind: "killed", signal: "SIGKILL" }, true, "degraded back"],
    ["switch", { kind: "timed-out", afterMs: 60_000 }, false, "degraded keep"],
    ["switch", { kind: "not-started", reason: "ENOENT" }, false, "failed back"],
  ];
  for (const [action, exit, moved, expected] of cases) {
    test(`${action}, ${JSON.stringify(exit)}, ${moved ? "moved" : "not moved"}: ${expected}`, () => {
      const verdict = judgeSwitch({
        action,
        exit,
        storePath: fresh,
        systemBefore: old,
        systemNow: moved ? fresh : old,
      });
      expect(verdict.kind === "good" ? "good" : `${verdict.outcome} ${verdict.putProfileBack ? "back" : "keep"}`).toBe(
        expected,
      );
    });
  }
});
