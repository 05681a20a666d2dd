/**
 * What comes next in an activation: record and event in, record out. No clock, no I/O.
 *
 *     checking ─► activating ───────────────► confirming ─► committing ─► finished (succeeded)
 *        │ │          │ exit 100                ▲  │ no proof     │ full /boot, …
 *        │ └──────► arming ─► rebooting ────────┘  │              │
 *        │            │ full /boot  │ the old one booted          │
 *        │            └─────────────┴──────────────┴──────────────┴─► undoing ─► finished (rolled-back | degraded)
 *        └─► finished (failed or cancelled: untouched)                 │   ▲
 *                                                   the new one booted └─► returning
 *
 * | stage      | good               | refused, untouched | bad                | reboot in between               |
 * | ---------- | ------------------ | ------------------ | ------------------ | ------------------------------- |
 * | checking   | activating ¹       | finished, failed   | finished, failed   | checking again                  |
 * | activating | confirming ²       | finished, failed ⁴ | undoing            | undoing                         |
 * | arming     | rebooting          | as bad ⁴           | undoing            | as rebooting                    |
 * | rebooting  | as bad ⁵           | as bad             | undoing            | new booted: confirming,         |
 * |            |                    |                    |                    | else undoing                    |
 * | confirming | committing ¹       | as bad             | undoing            | undoing                         |
 * | committing | finished           | as bad ⁴           | undoing            | the new one booted, or `boot`:  |
 * |            |                    |                    |                    | committing ⁶, else undoing      |
 * | undoing    | rolled-back        | as bad             | undoing ³, then    | undoing                         |
 * |            |                    |                    | finished, degraded |                                 |
 * | returning  | as bad ⁵           | as bad             | undoing            | undoing                         |
 *
 * Cancelled: where a refusal ends failed, it ends `cancelled` instead; everywhere else it is as bad. It is looked for
 * before each stage, and all the time while the proof is awaited; a program that runs is not stopped for it. So one that
 * comes while the last stage does its work comes too late. An undo knows no cancel.
 *
 * ¹ By mode: `boot` goes from checking to committing; `test` ends after confirming; `dry-activate` ends after checking.
 *   What takes effect by a reboot goes from checking to arming; so does, from activating, what turns out to need one.
 * ² With units that failed, if the policy is to keep them: the end is then degraded instead of succeeded.
 * ³ Up to {@link UNDO_TRIES_MAX} times. Where the new system was booted, the way back asks for a reboot: returning, up
 *   to {@link RETURNS_MAX} times; one more counts as a try that was bad.
 * ⁴ The first try of the first stage that touches anything (`boot`: committing; by reboot: arming) can still be refused;
 *   a later try may find what an earlier one did, so it counts as bad.
 * ⁵ Nothing but a reboot ends these stages well.
 * ⁶ confirming instead, when what booted was a trial: it was to prove itself after a reboot.
 *
 * Until committing, the boot default is the previous system: a power cut or a reboot at any earlier moment *is* the undo,
 * which `undoing` then only verifies. The boot that `arming` prepares is the exception, and a one-shot where the boot
 * loader knows that.
 */
import type { Fault, Outcome } from "../../deployment.ts";
import { formatSentence } from "../../sentence.ts";
import { type ActivationRecord, SENTENCE_CHARACTERS_MAX, type Stage } from "./record.ts";
import type { StageEnd } from "./types/driver.ts";

export type EngineEvent =
  | StageEnd
  /** Found before a stage's work: the coordinator does not want it any more. */
  | { readonly kind: "cancelled" }
  /** Found at a start: the machine rebooted since the record was written. */
  | { readonly kind: "rebooted"; readonly bootId: string; readonly runsNew: boolean };

export const CANCELLED_UNTOUCHED = "Cancelled before anything was touched.";
export const CANCELLED_TOUCHED = "a cancel asked to go back";

/** What the coordinator is told, by stage. */
export const PHASE_OF = {
  checking: "activating",
  activating: "activating",
  arming: "activating",
  rebooting: "rebooting",
  confirming: "confirming",
  committing: "confirming",
  undoing: "rolling-back",
  returning: "rolling-back",
  finished: null,
} as const satisfies Record<Stage, string | null>;

export const UNDO_TRIES_MAX = 3;
export const RETURNS_MAX = 2;

const NO_REBOOT = "the machine did not reboot";

/** The record to write before anything else is done. */
export function advance(record: ActivationRecord, event: EngineEvent): ActivationRecord {
  if (record.stage === "finished") return record;
  switch (event.kind) {
    case "good":
      return advanceGood(record, event);
    case "refused":
      return isUntouched(record) ? fail(record, event) : advanceBad(record, event);
    case "bad":
      return advanceBad(record, event);
    case "cancelled":
      return isUntouched(record)
        ? finish(record, { outcome: "cancelled", reason: CANCELLED_UNTOUCHED, exitCode: null })
        : advanceBad(record, { kind: "bad", reason: CANCELLED_TOUCHED, exitCode: null, cause: "elsewhere" });
    case "reboot":
      return advanceReturning(record);
    case "rebooted":
      return advanceRebooted({ ...record, bootId: event.bootId, deadlineUptimeMs: null }, event.runsNew);
    default:
      return event satisfies never;
  }
}

function advanceGood(record: ActivationRecord, event: Extract<EngineEvent, { kind: "good" }>): ActivationRecord {
  const unitsFailed = record.unitsFailed || event.unitsFailed === true;
  const exitCode = event.exitCode ?? record.exitCode;
  const { trial = record.trial } = event;
  const byReboot = mayStillReboot(record) && event.byReboot === true ? true : record.byReboot;
  const next: ActivationRecord = {
    ...{ ...record, unitsFailed, exitCode, note: joinNotes(record.note, event.note) },
    ...(trial === undefined ? {} : { trial }),
    ...(byReboot === undefined ? {} : { byReboot }),
    ...(event.unitChanges === undefined ? {} : { unitChanges: event.unitChanges }),
  };
  const succeed = () => finish(next, { ...describeSuccess(next), exitCode });
  switch (record.stage) {
    case "checking":
      if (record.mode === "dry-activate") return succeed();
      if (next.byReboot === true) return enter(next, "arming");
      return record.mode === "boot" ? enter(next, "committing") : enter(next, "activating");
    case "activating":
      return enter(next, next.byReboot === true ? "arming" : "confirming");
    case "arming":
      return enter(next, "rebooting");
    case "rebooting":
    case "returning":
      return advanceBad(record, { kind: "bad", reason: NO_REBOOT, exitCode: null, cause: "elsewhere" });
    case "confirming":
      return record.mode === "test" ? succeed() : enter(next, "committing");
    case "committing":
      return succeed();
    case "undoing":
      return finish(next, {
        outcome: "rolled-back",
        reason: [`${record.reason ?? "It was undone"}; the machine is back on ${describePrevious(record)}`, event.note]
          .filter((part) => part !== undefined)
          .join("; "),
        // Of what went wrong, not of the way back.
        exitCode: record.exitCode,
        fault: blame(record, event.reachesCoordinator),
      });
    case "finished":
      return record;
    default:
      return record.stage satisfies never;
  }
}

function advanceBad(
  record: ActivationRecord,
  event: Extract<EngineEvent, { kind: "bad" | "refused" }>,
): ActivationRecord {
  switch (record.stage) {
    case "checking":
      return fail(record, event);
    case "activating":
    case "arming":
    case "rebooting":
    case "confirming":
    case "committing": {
      const { reason, cause = "version" } = event;
      return enter({ ...record, reason: cut(reason), cause, exitCode: event.exitCode ?? record.exitCode }, "undoing");
    }
    case "returning":
      return enter(record, "undoing");
    case "undoing": {
      if (record.tries < UNDO_TRIES_MAX && (record.returns ?? 0) <= RETURNS_MAX) return record;
      const reason = `${record.reason ?? "It failed"}; going back to ${describePrevious(record)} failed: ${event.reason}`;
      return finish(record, { outcome: "degraded", reason, exitCode: record.exitCode, fault: blame(record) });
    }
    case "finished":
      return record;
    default:
      return record.stage satisfies never;
  }
}

function advanceReturning(record: ActivationRecord): ActivationRecord {
  if (record.stage !== "undoing") return record;
  const returns = (record.returns ?? 0) + 1;
  if (returns <= RETURNS_MAX) return { ...enter(record, "returning"), returns };
  const reason = "rebooting does not bring the machine back";
  return advanceBad({ ...record, returns }, { kind: "bad", reason, exitCode: null });
}

function advanceRebooted(record: ActivationRecord, runsNew: boolean): ActivationRecord {
  switch (record.stage) {
    case "checking":
    case "undoing":
      return record;
    case "arming":
    case "rebooting":
      if (runsNew) return enter(record, "confirming");
      return enter({ ...record, ...describeFallback(record) }, "undoing");
    case "returning":
      return enter(record, "undoing");
    case "activating":
    case "confirming":
      return enter({ ...record, ...cutShort("before the new version had proved itself") }, "undoing");
    case "committing":
      if (runsNew && isTried(record)) return enter({ ...record, byReboot: true }, "confirming");
      if (runsNew || record.mode === "boot") return record;
      return enter({ ...record, ...cutShort("while the new version was made permanent") }, "undoing");
    case "finished":
      return record;
    default:
      return record.stage satisfies never;
  }
}

/** While the machine was made ready for it, the reboot was not ours. */
function describeFallback({ stage }: ActivationRecord) {
  if (stage === "arming") return cutShort("before the new version could be booted");
  return { reason: "The new system did not come up, and the machine booted the old one", cause: "version" } as const;
}

/** Whether the new version or the mains did it, nobody can tell. */
function cutShort(when: string) {
  return { reason: `The machine rebooted ${when}`, cause: "elsewhere" } as const;
}

/** @param reachesCoordinator the old version, now that it is back; only asked for where nobody confirmed the new one */
function blame({ cause }: ActivationRecord, reachesCoordinator = true): Fault | null {
  switch (cause) {
    case "version":
      return "version";
    case "unconfirmed":
      return reachesCoordinator ? "version" : "contact";
    case "elsewhere":
    case null:
      return null;
    default:
      return cause satisfies never;
  }
}

/** Whether it can turn out that only a reboot takes it into effect. */
function mayStillReboot({ stage, mode }: ActivationRecord): boolean {
  return (stage === "checking" || stage === "activating") && (mode === "switch" || mode === "boot");
}

/** Whether what booted was to be tried by that boot, and did not prove itself after one yet. */
function isTried({ mode, byReboot, trial }: ActivationRecord): boolean {
  return byReboot !== true && (mode === "boot" || trial?.kind === "one-shot");
}

/** Whether nothing of this machine can have been changed yet. */
export function isUntouched({ stage, mode, tries, byReboot, exitCode }: ActivationRecord): boolean {
  if (stage === "checking") return true;
  if (tries > 1) return false;
  // With an exit code, its script has run before.
  if (byReboot === true) return stage === "arming" && exitCode === null;
  return stage === (mode === "boot" ? "committing" : "activating");
}

/** Takes note of a try that begins. */
export function begin(record: ActivationRecord): ActivationRecord {
  const commitBegun =
    record.commitBegun || record.stage === "committing" || record.stage === "arming" || isCommittedByActivating(record);
  return { ...record, tries: record.tries + 1, commitBegun };
}

/** A plain profile is live by being set, and some generations of Home Manager set theirs themselves. */
function isCommittedByActivating({ stage, type }: ActivationRecord): boolean {
  return stage === "activating" && (type === "plain" || type === "home-manager");
}

function enter(record: ActivationRecord, stage: Stage): ActivationRecord {
  return { ...record, stage, tries: 0, deadlineUptimeMs: null };
}

type End = {
  readonly outcome: Outcome;
  readonly reason: string;
  readonly exitCode: number | null;
  readonly fault?: Fault | null;
};

function fail(record: ActivationRecord, { reason, exitCode }: Omit<End, "outcome">): ActivationRecord {
  return finish(record, { outcome: "failed", reason, exitCode });
}

function finish(record: ActivationRecord, end: End): ActivationRecord {
  const { outcome, exitCode, fault = null } = end;
  return { ...enter(record, "finished"), outcome, reason: cut(formatSentence(end.reason)), exitCode, fault };
}

function joinNotes(before: string | null, note: string | undefined): string | null {
  return cut(before === null || note === undefined ? (note ?? before) : `${before}; ${note}`);
}

/** So that the record can be read again, and reported. */
function cut<Text extends string | null>(text: Text): Text | string {
  return text === null ? text : text.slice(0, SENTENCE_CHARACTERS_MAX);
}

function describeSuccess(record: ActivationRecord): Omit<End, "exitCode"> {
  const text = record.note === null ? describeLive(record) : `${describeLive(record)}; ${record.note}`;
  if (!record.unitsFailed) return { outcome: "succeeded", reason: text };
  const reason = `${text}; some units failed, and the policy is to keep it`;
  return { outcome: "degraded", reason, fault: "version" };
}

function describeLive({ storePath, mode, type, specialisation, byReboot }: ActivationRecord): string {
  if (byReboot === true) return `${storePath} is live, after a reboot`;
  const variant = specialisation === undefined ? "" : ` in its specialisation ${specialisation.name}`;
  switch (mode) {
    case "switch":
      return `${storePath} is live${variant}`;
    case "boot":
      return `${storePath} takes effect at the next reboot`;
    case "test":
      return `${storePath} is live${variant} until the next reboot`;
    case "dry-activate":
      return type === "nixos" || type === "home-manager"
        ? `${storePath} was only asked what it would do; nothing was changed`
        : `${storePath} is in the store; nothing was changed`;
    default:
      return mode satisfies never;
  }
}

function describePrevious({ previous }: ActivationRecord): string {
  return previous.current ?? previous.profile ?? "having no version";
}
