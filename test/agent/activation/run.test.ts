/** Activations with programs played by the test: what the outcome says must be what the machine shows. */
import { beforeEach, describe, expect, test } from "bun:test";
import { type ActivationRequest, createActivator } from "../../../src/agent/activation/run.ts";
import type { ProgramExit } from "../../../src/agent/process.ts";
import type { StorePath } from "../../../src/nix/store-path.ts";
import { createInstantClock } from "../../support/instant-clock.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const OLD = storePathFor("old");
const NEW = storePathFor("new");
const SCRIPT = storePathFor("check");
const OK: ProgramExit = { kind: "exited", code: 0 };
const code = (value: number): ProgramExit => ({ kind: "exited", code: value });

let profile: StorePath | null;
let current: StorePath | null;
let commands: string[];
/** By the command's last words; the default succeeds and has its effect. */
let ends: Record<string, ProgramExit[]>;
let stuckProfile: boolean;

beforeEach(() => {
  profile = OLD;
  current = OLD;
  commands = [];
  ends = {};
  stuckProfile = false;
});

async function activate(
  names: Readonly<Record<StorePath, readonly string[]>>,
  changes: Partial<ActivationRequest> = {},
) {
  const activator = createActivator({
    profilePath: "/p/system",
    clock: createInstantClock(),
    environment: {},
    readNames: async (path) => new Set(names[path] ?? []),
    readProfilePath: async () => profile,
    readCurrentSystem: async () => current,
    run: async ({ command, args, onLine }) => {
      const what = [command, ...args.slice(-1)].join(" ").replaceAll(/\/nix\/store\/[^-]+-/g, "");
      commands.push(what);
      await onLine("out", `ran ${what}`);
      const exit = ends[what]?.shift() ?? OK;
      const succeeds = exit.kind === "exited" && [0, 4, 100].includes(exit.code);
      const target = args.at(-1) ?? "";
      if (command === "nix-env" && succeeds && !stuckProfile) profile = target === NEW ? NEW : OLD;
      if (succeeds && (target === "switch" || target === "test")) current = command.includes("-new/") ? NEW : OLD;
      return exit;
    },
  });
  return await activator.activate({
    storePath: NEW,
    mode: "switch",
    previousPath: OLD,
    rollbackScript: null,
    isResumed: false,
    log: async () => {},
    ...changes,
  });
}

const NIXOS = { [OLD]: ["nixos-version"], [NEW]: ["nixos-version"] };
const SWITCH = "new/bin/switch-to-configuration switch";

describe("NixOS", () => {
  test("sets the profile, then switches", async () => {
    expect(await activate(NIXOS)).toEqual({ outcome: "succeeded", reason: `${NEW} is live.`, exitCode: 0 });
    expect(commands).toEqual(["nix-env new", SWITCH]);
  });

  test("a check that refuses leaves everything as it was", async () => {
    ends = { [SWITCH]: [code(1)] };
    const result = await activate(NIXOS);
    expect(result).toMatchObject({ outcome: "failed", exitCode: 1 });
    expect(result.reason).toContain("ended with code 1; the running system is the one from before");
    expect([profile, current]).toEqual([OLD, OLD]);
  });

  test("failed units: live, the profile stays, degraded", async () => {
    ends = { [SWITCH]: [code(4)] };
    expect(await activate(NIXOS)).toMatchObject({ outcome: "degraded", exitCode: 4 });
    expect([profile, current]).toEqual([NEW, NEW]);
  });

  test("a held lock fails at once", async () => {
    ends = { [SWITCH]: [code(11)] };
    expect(await activate(NIXOS)).toMatchObject({ outcome: "failed", exitCode: 11 });
    expect(profile).toBe(OLD);
  });

  test("a lock held by what an earlier run began is waited for", async () => {
    ends = { [SWITCH]: [code(11), code(11)] };
    expect(await activate(NIXOS, { isResumed: true })).toMatchObject({ outcome: "succeeded" });
    expect(commands.filter((command) => command === SWITCH).length).toBe(3);
  });

  test("a profile that cannot be put back is degraded and says so", async () => {
    ends = { [SWITCH]: [code(1)], "nix-env old": [code(1)] };
    const result = await activate(NIXOS);
    expect(result.outcome).toBe("degraded");
    expect(result.reason).toContain("the profile /p/system could not be put back");
  });

  test("the first system of a profile cannot be taken back: degraded", async () => {
    profile = null;
    ends = { [SWITCH]: [code(1)] };
    expect((await activate(NIXOS, { previousPath: null })).outcome).toBe("degraded");
  });

  test("boot, test and dry-activate do what they say", async () => {
    expect((await activate(NIXOS, { mode: "boot" })).reason).toContain("next reboot");
    expect([profile, current]).toEqual([NEW, OLD]);
    profile = OLD;
    expect((await activate(NIXOS, { mode: "test" })).outcome).toBe("succeeded");
    expect([profile, current]).toEqual([OLD, NEW]);
    current = OLD;
    expect((await activate(NIXOS, { mode: "dry-activate" })).reason).toContain("nothing was changed");
    expect([profile, current]).toEqual([OLD, OLD]);
  });
});

describe("the rollback script", () => {
  test("that agrees changes nothing", async () => {
    expect(await activate(NIXOS, { rollbackScript: SCRIPT })).toMatchObject({ outcome: "succeeded" });
    expect(commands.at(-1)).toBe("check");
  });

  test("that says no brings profile and system back", async () => {
    ends = { check: [code(7)] };
    const result = await activate(NIXOS, { rollbackScript: SCRIPT });
    expect(result).toEqual({
      outcome: "rolled-back",
      reason: `The rollback script ended with code 7; back on ${OLD}.`,
      exitCode: 7,
    });
    expect([profile, current]).toEqual([OLD, OLD]);
    expect(commands.slice(-2)).toEqual(["nix-env old", "old/bin/switch-to-configuration switch"]);
  });

  test("that says no when the way back fails is degraded", async () => {
    ends = { check: [code(7)], "old/bin/switch-to-configuration switch": [code(2)] };
    const result = await activate(NIXOS, { rollbackScript: SCRIPT });
    expect(result.outcome).toBe("degraded");
    expect(result.reason).toContain(`going back to ${OLD} ended with code 2`);
  });

  test("that says no to the first version is degraded", async () => {
    ends = { check: [code(7)] };
    profile = null;
    expect((await activate({}, { rollbackScript: SCRIPT, previousPath: null })).outcome).toBe("degraded");
  });
});

describe("a plain profile", () => {
  test("is set", async () => {
    expect(await activate({})).toEqual({ outcome: "succeeded", reason: `${NEW} is live.`, exitCode: 0 });
    expect(commands).toEqual(["nix-env new"]);
  });

  test("that cannot be set fails untouched", async () => {
    ends = { "nix-env new": [{ kind: "not-started", reason: "ENOENT" }] };
    const result = await activate({});
    expect(result).toMatchObject({ outcome: "failed", exitCode: null });
    expect(result.reason).toBe("Setting the profile /p/system could not be started (ENOENT).");
  });

  test("that does not move although nix-env says so fails", async () => {
    stuckProfile = true;
    expect((await activate({})).outcome).toBe("failed");
  });

  test("keeps its type", async () => {
    const result = await activate({ [OLD]: ["nixos-version"], [NEW]: ["bin"] });
    expect(result.outcome).toBe("failed");
    expect(result.reason).toContain("a profile keeps its type");
    expect(commands).toEqual([]);
  });
});
