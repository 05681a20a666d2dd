/** Every way in which `switch-to-configuration test` can end, forward and back. */
import { describe, expect, test } from "bun:test";
import { judgeTest, judgeUndo } from "../../../../src/agent/activation/types/judge.ts";
import type { ProgramExit } from "../../../../src/agent/machine/process.ts";
import { exited } from "../model-machine.ts";

const ENDS: readonly (readonly [ProgramExit, string])[] = [
  [{ kind: "killed", signal: "SIGKILL" }, "was ended by SIGKILL"],
  [{ kind: "timed-out", afterMs: 60_000 }, "did not end within 60 s"],
  [{ kind: "not-started", reason: "ENOENT" }, "could not be started (ENOENT)"],
];
const KEEP = { onUnitFailure: "keep", mayReboot: false } as const;
const ROLLBACK = { onUnitFailure: "rollback", mayReboot: false } as const;
const NOTHING_FAILS = { failedBefore: [], failedNow: [] } as const;

describe("the new system's script", () => {
  const judge = (exit: ProgramExit, policy: typeof KEEP | typeof ROLLBACK = ROLLBACK, failed = ["new.service"]) =>
    judgeTest({ exit, policy, failedBefore: ["old.service"], failedNow: failed });

  for (let code = 0; code < 256; code += 1) {
    test(`code ${code}`, () => {
      const kind = code === 0 ? "good" : code === 11 ? "refused" : "bad";
      expect(judge(exited(code))).toMatchObject({ kind, exitCode: code });
      const keptKind = code === 4 ? "good" : kind;
      expect(judge(exited(code), KEEP)).toMatchObject({ kind: keptKind, exitCode: code });
    });
  }

  for (const [exit, words] of ENDS) {
    test(`that ${words} is bad, and no code is made up`, () => {
      const end = judge(exit, KEEP);
      expect(end).toMatchObject({ kind: "bad", exitCode: null });
      expect(end.kind === "bad" ? end.reason : "").toContain(words);
    });
  }

  test("code 100 goes on by a reboot, where one may be made", () => {
    const end = judgeTest({ ...NOTHING_FAILS, exit: exited(100), policy: { ...ROLLBACK, mayReboot: true } });
    expect(end).toEqual({ kind: "good", exitCode: 100, byReboot: true });
  });

  test("code 4 names the units, keeps them where the policy says so, and forgives those that failed before", () => {
    expect(judge(exited(4))).toMatchObject({ reason: expect.stringContaining("new.service") });
    expect(judge(exited(4), KEEP)).toMatchObject({ kind: "good", unitsFailed: true });
    expect(judge(exited(4), ROLLBACK, ["old.service"])).toMatchObject({ kind: "good" });
    expect(judge(exited(4), ROLLBACK, ["old.service"])).not.toHaveProperty("unitsFailed");
    expect(judge(exited(4), ROLLBACK, [])).toMatchObject({ kind: "bad" });
  });
});

describe("the previous system's script, on the way back", () => {
  const judge = (exit: ProgramExit, failedNow: readonly string[] | null = []) =>
    judgeUndo({ exit, failedBefore: ["old.service"], failedNow });

  for (let code = 0; code < 256; code += 1) {
    test(`code ${code}`, () => {
      expect(judge(exited(code)).kind).toBe(code === 0 || code === 4 ? "good" : "bad");
    });
  }

  for (const [exit, words] of ENDS) {
    test(`that ${words} is bad`, () => {
      const end = judge(exit);
      expect(end.kind === "bad" ? end.reason : "").toContain(words);
    });
  }

  test("code 4 is good when what fails failed before, or nobody can tell; else it names what does not", () => {
    expect(judge(exited(4), ["old.service"]).kind).toBe("good");
    expect(judge(exited(4), null).kind).toBe("good");
    expect(judge(exited(4), ["old.service", "other.service"])).toEqual({
      kind: "bad",
      reason: "units that worked before fail now: other.service",
      exitCode: 4,
    });
  });
});
