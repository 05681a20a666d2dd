/**
 * The table of activation-faults.test.ts: what is combined with what, and how each combination must end. Nothing here
 * touches a machine.
 *
 *   modes × ends of the switch script × proofs × kills (who, at which stage on record)
 *
 * Only combinations that exist: a stage that a mode or an end never comes to is not killed in, a proof that is never
 * asked for is not varied.
 */
import type { Fault, FixtureOptions } from "../support/builder.ts";
import type { Kill, Stage } from "./fault-lane.ts";

export type Mode = "switch" | "boot" | "test" | "dry-activate";

/** One way of the new system's switch-to-configuration to behave. */
export type ScriptEnd = {
  readonly faults?: readonly Fault[];
  readonly system?: Partial<FixtureOptions["system"]>;
  /** The call that does not go well; null when all do. */
  readonly breaks: "check" | "dry-activate" | "test" | "boot" | null;
  /** Refuses before it touches anything. */
  readonly refuses?: true;
  /** Where its call `test` is held; default: units are stopped, nothing else is done. "itself": it hangs there anyway. */
  readonly heldAt?: "start" | "stop-units" | "activate" | "itself";
  readonly flags?: readonly string[];
  /** The policy is to keep it although units fail. */
  readonly degraded?: true;
};

const test = ["test"] as const;
const boot = ["boot"] as const;
const check = ["check"] as const;
/** Long enough for a script that does something, on a busy machine. */
const SHORT = ["--activation-timeout", "4s"] as const;
const BROKEN_UNIT = { units: [{ name: "app.service" }, { name: "broken.service", fails: true }] };

export const SCRIPT_ENDS = {
  "exit 0": { breaks: null },
  "check fails": { faults: [{ stage: "pre-switch-check", kind: "fail", actions: check }], breaks: "check" },
  "check hangs": {
    faults: [{ stage: "pre-switch-check", kind: "hang", actions: check }],
    breaks: "check",
    flags: SHORT,
  },
  "check finds the lock held": {
    faults: [{ stage: "start", kind: "exit", argument: 11, actions: check }],
    breaks: "check",
    flags: SHORT,
  },
  "exit 1 at once": {
    faults: [{ stage: "start", kind: "exit", argument: 1, actions: test }],
    breaks: "test",
    heldAt: "start",
  },
  "exit 1 after units were stopped": {
    faults: [{ stage: "stop-units", kind: "exit", argument: 1, actions: test }],
    breaks: "test",
    heldAt: "stop-units",
  },
  "exit 2": { faults: [{ stage: "activate", kind: "fail", actions: test }], breaks: "test" },
  "exit 3": { faults: [{ stage: "end", kind: "exit", argument: 3, actions: test }], breaks: "test" },
  "exit 4": { system: BROKEN_UNIT, breaks: "test" },
  "exit 4, kept": { system: BROKEN_UNIT, breaks: null, degraded: true, flags: ["--on-unit-failure", "keep"] },
  "exit 11": {
    faults: [{ stage: "start", kind: "exit", argument: 11, actions: test }],
    breaks: "test",
    refuses: true,
    heldAt: "start",
    flags: SHORT,
  },
  "exit 77": { faults: [{ stage: "start-units", kind: "exit", argument: 77, actions: test }], breaks: "test" },
  "exit 100": { system: { initInterfaceVersion: "systemd 4" }, breaks: "test", heldAt: "start" },
  "SIGKILL before activation": {
    faults: [{ stage: "activate", kind: "signal", argument: "KILL", actions: test }],
    breaks: "test",
  },
  "SIGTERM at its end": {
    faults: [{ stage: "end", kind: "signal", argument: "TERM", actions: test }],
    breaks: "test",
  },
  hangs: { faults: [{ stage: "start-units", kind: "hang", actions: test }], breaks: "test", flags: SHORT },
  "hangs with the lock": {
    faults: [{ stage: "start-units", kind: "hang", actions: test }],
    breaks: "test",
    heldAt: "itself",
    flags: SHORT,
  },
  "hangs and ignores SIGTERM": {
    faults: [{ stage: "activate", kind: "hang-ignoring-sigterm", actions: test }],
    breaks: "test",
    flags: SHORT,
  },
  "much output": {
    faults: [
      { stage: "activate", kind: "print-mebibytes", argument: 1, actions: test },
      { stage: "end", kind: "print-lines", argument: 5_000, actions: test },
    ],
    breaks: null,
  },
  "closed stdout": { faults: [{ stage: "activate", kind: "close-output", actions: test }], breaks: null },
  "boot loader fails": { faults: [{ stage: "boot-loader", kind: "fail", actions: boot }], breaks: "boot" },
  "boot loader dies at its end": {
    faults: [{ stage: "boot-loader-done", kind: "signal", argument: "KILL", actions: boot }],
    breaks: "boot",
  },
  "boot loader hangs": {
    faults: [{ stage: "boot-loader", kind: "hang", actions: boot }],
    breaks: "boot",
    flags: SHORT,
  },
  "dry-activate fails": {
    faults: [{ stage: "pre-switch-check", kind: "fail", actions: ["dry-activate"] }],
    breaks: "dry-activate",
  },
  "dry-activate hangs": {
    faults: [{ stage: "pre-switch-check", kind: "hang", actions: ["dry-activate"] }],
    breaks: "dry-activate",
    flags: SHORT,
  },
} as const satisfies Record<string, ScriptEnd>;
export type ScriptName = keyof typeof SCRIPT_ENDS;

export const scriptEnd = (name: ScriptName): ScriptEnd => SCRIPT_ENDS[name];

/** "unreachable": the coordinator is, from before the proof until after the undo. */
export type Proof = "proved" | "unreachable" | "script passes" | "script fails" | "script hangs";

export type FaultCase = {
  readonly name: string;
  readonly mode: Mode;
  readonly script: ScriptName;
  readonly proof: Proof;
  readonly kill: Kill | null;
};

export type Expected = {
  readonly state: "succeeded" | "failed" | "rolled-back" | "degraded";
  /** Of profile link and boot default. */
  readonly permanent: "old" | "new";
  /** Of /run/current-system and units. */
  readonly running: "old" | "new";
};

const OLD = { permanent: "old", running: "old" } as const;

export function expectEnd({ mode, script, proof, kill }: Omit<FaultCase, "name">): Expected {
  const { breaks, refuses, degraded } = scriptEnd(script);
  const failed = { state: "failed", ...OLD } as const;
  const rolledBack = { state: "rolled-back", ...OLD } as const;
  if (mode === "dry-activate") return breaks === "dry-activate" ? failed : { state: "succeeded", ...OLD };
  if (breaks === "check") return failed;
  const wasTouched = kill?.at === "activating" && (kill.who === "supervisor" || kill.who === "both");
  if (breaks === "test" && mode !== "boot") return refuses && !wasTouched ? failed : rolledBack;
  if (mode !== "boot" && proof !== "proved" && proof !== "script passes") return rolledBack;
  if (breaks === "boot" && mode !== "test") return rolledBack;
  const state = degraded && mode !== "boot" ? "degraded" : "succeeded";
  return { state, permanent: mode === "test" ? "old" : "new", running: mode === "boot" ? "old" : "new" };
}

/** The stages that are on record one after the other, up to the end. */
export function stagesOf(options: Omit<FaultCase, "name" | "kill">): readonly Stage[] {
  const { mode, script, proof } = options;
  const { breaks } = scriptEnd(script);
  const isUndone = expectEnd({ ...options, kill: null }).state === "rolled-back";
  const undoing: Stage[] = isUndone ? ["undoing"] : [];
  if (mode === "dry-activate" || breaks === "check") return ["checking"];
  if (mode === "boot") return ["checking", "committing", ...undoing];
  if (breaks === "test") return ["checking", "activating", ...undoing];
  const isProved = proof === "proved" || proof === "script passes";
  const commits: Stage[] = mode === "switch" && isProved ? ["committing"] : [];
  return ["checking", "activating", "confirming", ...commits, ...undoing];
}

const ALL_SCRIPTS = Object.keys(SCRIPT_ENDS) as ScriptName[];
const PROOFS: readonly Proof[] = ["proved", "unreachable", "script passes", "script fails", "script hangs"];
const WHO: readonly Kill["who"][] = ["agent", "agent until the end", "supervisor", "both"];

type Plain = Omit<FaultCase, "name" | "kill">;

/** A script is combined with the modes that call what it breaks; one that breaks nothing, with all that call `test`. */
function isCalled(script: ScriptName, mode: Mode): boolean {
  const { breaks } = scriptEnd(script);
  if (mode === "dry-activate") return breaks === "dry-activate" || script === "exit 0";
  if (breaks === "dry-activate") return false;
  if (mode === "boot") return breaks === "boot" || breaks === "check" || script === "exit 0";
  return mode === "switch" || breaks !== "boot";
}

function listPlain(): Plain[] {
  const modes: readonly Mode[] = ["switch", "test", "boot", "dry-activate"];
  const scripts = modes.flatMap((mode) =>
    ALL_SCRIPTS.filter((script) => isCalled(script, mode)).map((script): Plain => ({ mode, script, proof: "proved" })),
  );
  const proofs = (["switch", "test"] as const).flatMap((mode) =>
    PROOFS.slice(1).map((proof): Plain => ({ mode, script: "exit 0", proof })),
  );
  return [...scripts, ...proofs];
}

/** In mode switch everybody at every stage; in the others those whose death the activation itself must survive. */
function listKills(plain: Plain): Kill[] {
  const { mode, script } = plain;
  // Ten seconds each, for the same as "hangs".
  if (script === "hangs and ignores SIGTERM") return [];
  const who: readonly Kill["who"][] = mode === "switch" ? WHO : ["supervisor", "both"];
  return stagesOf(plain).flatMap((at) => who.map((one) => ({ who: one, at })));
}

/** The ones for every run; all of them with FAULT_MATRIX=full. */
const CHOSEN: ReadonlySet<string> = new Set([
  "switch · exit 0 · proved",
  "switch · check fails · proved",
  "switch · exit 1 after units were stopped · proved",
  "switch · exit 2 · proved",
  "switch · exit 4 · proved",
  "switch · exit 4, kept · proved",
  "switch · exit 11 · proved",
  "switch · exit 100 · proved",
  "switch · SIGKILL before activation · proved",
  "switch · hangs · proved",
  "switch · much output · proved",
  "switch · closed stdout · proved",
  "switch · boot loader fails · proved",
  "switch · boot loader dies at its end · proved",
  "switch · exit 0 · unreachable",
  "switch · exit 0 · script fails",
  "switch · exit 0 · script hangs",
  "test · exit 0 · proved",
  "test · exit 3 · proved",
  "boot · exit 0 · proved",
  "boot · boot loader fails · proved",
  "dry-activate · exit 0 · proved",
  "dry-activate · dry-activate fails · proved",
  "switch · exit 0 · proved · kill -9 agent while activating",
  "switch · exit 0 · proved · kill -9 agent until the end while committing",
  "switch · exit 0 · proved · kill -9 supervisor while checking",
  "switch · exit 0 · proved · kill -9 supervisor while activating",
  "switch · exit 0 · proved · kill -9 supervisor while confirming",
  "switch · exit 0 · proved · kill -9 supervisor while committing",
  "switch · exit 0 · proved · kill -9 both while committing",
  "switch · exit 0 · unreachable · kill -9 agent until the end while confirming",
  "switch · exit 0 · unreachable · kill -9 both while confirming",
  "switch · hangs with the lock · proved · kill -9 supervisor while activating",
  "switch · exit 2 · proved · kill -9 both while activating",
  "switch · exit 2 · proved · kill -9 supervisor while undoing",
  "switch · exit 2 · proved · kill -9 both while undoing",
]);

export function chooseFaultCases(): readonly FaultCase[] {
  const chosen = listFaultCases().filter((one) => CHOSEN.has(one.name));
  if (chosen.length !== CHOSEN.size) throw new Error("a chosen case is not in the table");
  return chosen;
}

export function describeCase({ mode, script, proof, kill }: Omit<FaultCase, "name">): string {
  const death = kill === null ? "" : ` · kill -9 ${kill.who} while ${kill.at}`;
  return `${mode} · ${script} · ${proof}${death}`;
}

export function listFaultCases(): readonly FaultCase[] {
  const plain = listPlain();
  const cases = [
    ...plain.map((one) => ({ ...one, kill: null })),
    ...plain.flatMap((one) => listKills(one).map((kill) => ({ ...one, kill }))),
  ];
  return cases.map((one) => ({ name: describeCase(one), ...one }));
}
