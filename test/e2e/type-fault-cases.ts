/**
 * The table of type-faults.test.ts: types other than NixOS × ends of their scripts × proofs × kills, and how each must
 * end. Nothing here touches a machine.
 *
 * Only combinations that exist: a stage that an end never comes to is not killed in, nor one in which nothing can be held
 * (`checking` runs no program; `committing` only where it sets the profile).
 */
import type { Fault } from "../support/builder.ts";

/** "home-manager 0 to 1": from a generation of the older protocol to one of the newer. */
export const KINDS = [
  "home-manager 1 to 1",
  "home-manager 0 to 0",
  "home-manager 0 to 1",
  "home-manager 1 to 0",
  "darwin",
  "plain with a hook",
] as const;
export type Kind = (typeof KINDS)[number];
type Stage = "activating" | "confirming" | "committing" | "undoing";
type Proof = "proved" | "unreachable";
type Kill = { readonly who: "agent" | "supervisor" | "both"; readonly at: Stage };

/** How the new version's script behaves; it does its work in halves, and the other faults are in between. */
export const SCRIPT_ENDS = {
  "exit 0": [],
  "fails before it writes": [{ stage: "pre-switch-check", kind: "fail" }],
  "fails before it links": [{ stage: "clean", kind: "exit", argument: 1 }],
  "fails half-way": [{ stage: "link", kind: "exit", argument: 1 }],
  "fails at its end": [{ stage: "end", kind: "fail" }],
  hangs: [{ stage: "link", kind: "hang" }],
  "is killed": [{ stage: "link", kind: "signal", argument: "KILL" }],
  "much output": [{ stage: "link", kind: "print-lines", argument: 5_000 }],
  "closed stdout": [{ stage: "start", kind: "close-output" }],
} as const satisfies Record<string, readonly Fault[]>;
export type ScriptName = keyof typeof SCRIPT_ENDS;

export type TypeCase = {
  readonly name: string;
  readonly kind: Kind;
  readonly script: ScriptName;
  readonly proof: Proof;
  readonly kill: Kill | null;
};

export type Expected = {
  readonly state: "succeeded" | "failed" | "rolled-back";
  readonly version: "old" | "new";
};

const LIVES: readonly ScriptName[] = ["exit 0", "much output", "closed stdout"];

export function expectEnd({ kind, script, proof }: Omit<TypeCase, "name">): Expected {
  const refuses = script === "fails before it writes" && kind.startsWith("home-manager");
  if (refuses) return { state: "failed", version: "old" };
  const isLive = LIVES.includes(script) && proof === "proved";
  return isLive ? { state: "succeeded", version: "new" } : { state: "rolled-back", version: "old" };
}

/** Whether the profile is set by us, after the proof: there `committing` can be held. */
function commitsProfile(kind: Kind): boolean {
  return kind === "darwin" || kind.endsWith("to 1");
}

function stagesOf({ kind, script, proof }: Omit<TypeCase, "name" | "kill">): readonly Stage[] {
  if (script !== "exit 0") return ["activating", "undoing"];
  if (proof === "unreachable") return ["activating", "confirming", "undoing"];
  return commitsProfile(kind) ? ["activating", "confirming", "committing"] : ["activating", "confirming"];
}

const WHO: readonly Kill["who"][] = ["agent", "supervisor", "both"];

export function listTypeCases(): readonly TypeCase[] {
  const plain = KINDS.flatMap((kind) => [
    ...(Object.keys(SCRIPT_ENDS) as ScriptName[])
      // The hook of a plain profile has nothing that only looks.
      .filter((script) => script !== "fails before it writes" || kind !== "plain with a hook")
      .map((script) => ({ kind, script, proof: "proved" as const })),
    { kind, script: "exit 0" as const, proof: "unreachable" as const },
  ]);
  const killed = plain
    .filter(({ script }) => script === "exit 0" || script === "fails half-way")
    .flatMap((one) => stagesOf(one).flatMap((at) => WHO.map((who) => ({ ...one, kill: { who, at } }))));
  return [...plain.map((one) => ({ ...one, kill: null })), ...killed].map((one) => ({
    name: describeCase(one),
    ...one,
  }));
}

function describeCase({ kind, script, proof, kill }: Omit<TypeCase, "name">): string {
  const death = kill === null ? "" : ` · kill -9 ${kill.who} while ${kill.at}`;
  return `${kind} · ${script} · ${proof}${death}`;
}

/** For every run, of each kind; all of them with TYPE_MATRIX=full. */
const CHOSEN: Readonly<Record<Kind, readonly string[]>> = {
  "home-manager 1 to 1": [
    "exit 0 · proved",
    "fails before it writes · proved",
    "fails before it links · proved",
    "fails half-way · proved",
    "hangs · proved",
    "is killed · proved",
    "closed stdout · proved",
    "exit 0 · unreachable",
    "exit 0 · proved · kill -9 supervisor while activating",
    "exit 0 · proved · kill -9 both while committing",
    "exit 0 · unreachable · kill -9 both while confirming",
    "fails half-way · proved · kill -9 both while activating",
    "fails half-way · proved · kill -9 supervisor while undoing",
  ],
  "home-manager 0 to 0": [
    "exit 0 · proved",
    "fails before it links · proved",
    "exit 0 · unreachable",
    "exit 0 · proved · kill -9 both while activating",
    "fails half-way · proved · kill -9 both while undoing",
  ],
  "home-manager 0 to 1": ["exit 0 · proved", "fails half-way · proved", "exit 0 · unreachable"],
  "home-manager 1 to 0": ["exit 0 · proved", "fails half-way · proved · kill -9 supervisor while activating"],
  darwin: [
    "exit 0 · proved",
    "fails half-way · proved",
    "hangs · proved",
    "exit 0 · unreachable · kill -9 both while confirming",
    "exit 0 · proved · kill -9 supervisor while activating",
    "exit 0 · proved · kill -9 both while committing",
    "fails half-way · proved · kill -9 both while undoing",
  ],
  "plain with a hook": [
    "exit 0 · proved",
    "fails half-way · proved",
    "hangs · proved",
    "exit 0 · unreachable · kill -9 both while confirming",
    "exit 0 · proved · kill -9 supervisor while activating",
    "fails half-way · proved · kill -9 both while undoing",
  ],
};

export function chooseTypeCases(): readonly TypeCase[] {
  const names = KINDS.flatMap((kind) => CHOSEN[kind].map((rest) => `${kind} · ${rest}`));
  const chosen = listTypeCases().filter(({ name }) => names.includes(name));
  if (chosen.length !== names.length) throw new Error("a chosen case is not in the table");
  return chosen;
}
