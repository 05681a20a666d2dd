/**
 * The lifecycle of a deployment: state and event in, change out. No clock, no I/O, no effects.
 *
 *     queued ─► offered ─► fetching ─► activating ─► [rebooting] ─► confirming ─► succeeded
 *        │         │           │            └────────────┴──────────────┴──► rolling-back ─► rolled-back | degraded
 *        │         └───────────┴──────────────────────────────────────────► failed
 *        └─────────┴───────────┴──► superseded | cancelled        queued, offered ─► expired
 *
 * | event        | queued     | offered          | fetching         | activating … rolling-back | terminal |
 * | ------------ | ---------- | ---------------- | ---------------- | ------------------------- | -------- |
 * | offer        | offered    | –                | –                | –                         | –        |
 * | forgotten    | –          | queued ¹         | queued ¹         | degraded ²                | –        |
 * | phase        | that phase | that phase       | that phase       | that phase                | –        |
 * | outcome      | outcome    | outcome ³        | outcome ³        | outcome ³                 | – ⁶      |
 * | supersede    | superseded | ask to stop      | ask to stop ⁴    | –                         | –        |
 * | cancel       | cancelled  | ask to stop      | ask to stop      | ask to stop               | –        |
 * | expire       | expired    | expired ⁷        | –                | –                         | –        |
 * | restore      | cancelled  | cancelled        | cancelled        | –                         | –        |
 * | removed      | cancelled  | cancelled        | cancelled        | degraded ⁵                | –        |
 *
 * ¹ superseded instead when a newer one waits: an agent has at most one queued deployment. The same for a queued one
 *   that was asked to stop.
 * ² The agent came back without any memory of it: what its machine runs now, a human must see.
 * ³ `cancelled` becomes `superseded` when that was why it was asked to stop.
 * ⁴ Asked only when the agent returns from a lost contact; one that works on it connected is left to finish.
 * ⁵ Its agent is nobody any more, so its word will never come; without its login it goes back by itself.
 * ⁶ What was ended here without the agent's word may have been carried out. What the agent says of it later is kept beside
 *   the state (`late-outcome.ts`).
 * ⁷ Comes only while the agent is out of contact. One that was asked to stop ends as that.
 *
 * The agent's word decides: a phase may follow any live state, since an agent that was killed starts a step again. A
 * lost connection is never an outcome, and takes no offer back: the agent may have accepted it, and be at work on it out
 * of reach. What it knows, its next login says. "Ask to stop" sets `stopRequested`; the state changes when the agent
 * answers.
 */
import { type DeploymentState, isTerminal, type Outcome, type Phase } from "../../deployment.ts";

export type StopReason = "cancelled" | "superseded";

export type Lifecycle = { readonly state: DeploymentState; readonly stopRequested: StopReason | null };

export type LifecycleEvent =
  | { readonly type: "offer" }
  | { readonly type: "forgotten"; readonly newerWaits: boolean }
  | { readonly type: "phase"; readonly phase: Phase }
  | { readonly type: "outcome"; readonly outcome: Outcome; readonly reason: string }
  | { readonly type: "supersede" }
  | { readonly type: "cancel" }
  /** It has waited for as long as it may, and its agent is out of contact. */
  | { readonly type: "expire" }
  /** The database is a backup: what it was about to start may have been done, or overtaken, since. */
  | { readonly type: "restore" }
  /** The operator removed its agent. */
  | { readonly type: "removed" };

/** The next state, with the sentence that explains it where there is something to explain. */
export type LifecycleChange = Lifecycle & { readonly reason: string | null };

const SUPERSEDED = "A newer deployment took its place.";
const EXPIRED = "The agent did not come back in time.";
const UNHEARD = "The agent was offered it and did not come back in time: it may have carried it out.";
const FORGOTTEN = "The agent came back without any memory of it; look at what the machine runs.";
const REMOVED = "Its agent was removed.";
const REMOVED_RUNNING = "Its agent was removed before it told how this ended; look at what the machine runs.";
const STOPPED_AND_FORGOTTEN = "It was asked to stop, and the agent came back without any memory of it.";
const RESTORED = "The coordinator was restored from a backup before it ended; start it again if it is still wanted.";

/** The machine may be on the new version by now. */
const HAS_TOUCHED: ReadonlySet<DeploymentState> = new Set(["activating", "rebooting", "confirming", "rolling-back"]);

/** @returns null when the event means nothing in this state (see the table above) */
export function step(current: Lifecycle, event: LifecycleEvent): LifecycleChange | null {
  if (isTerminal(current.state)) return null;
  switch (event.type) {
    case "offer":
      return current.state === "queued" ? enter("offered") : null;
    case "forgotten":
      return stepForgotten(current, event.newerWaits);
    case "phase":
      return current.state === event.phase ? null : { ...current, state: event.phase, reason: null };
    case "outcome":
      if (event.outcome === "cancelled" && current.stopRequested === "superseded")
        return enter("superseded", SUPERSEDED);
      return enter(event.outcome, event.reason);
    case "supersede":
      if (current.state === "queued") return enter("superseded", SUPERSEDED);
      return current.state === "offered" || current.state === "fetching" ? askToStop(current, "superseded") : null;
    case "cancel":
      return current.state === "queued"
        ? enter("cancelled", "Cancelled before it started.")
        : askToStop(current, "cancelled");
    case "expire":
      if (current.state === "queued") return enter("expired", EXPIRED);
      return current.state === "offered" ? enter(current.stopRequested ?? "expired", UNHEARD) : null;
    case "restore":
      return ["queued", "offered", "fetching"].includes(current.state) ? enter("cancelled", RESTORED) : null;
    case "removed":
      return HAS_TOUCHED.has(current.state) ? enter("degraded", REMOVED_RUNNING) : enter("cancelled", REMOVED);
    default:
      return event satisfies never;
  }
}

function stepForgotten(current: Lifecycle, newerWaits: boolean): LifecycleChange | null {
  switch (current.state) {
    case "offered":
    case "fetching":
      return backToQueue(current, newerWaits);
    case "activating":
    case "rebooting":
    case "confirming":
    case "rolling-back":
      return enter("degraded", FORGOTTEN);
    case "queued":
    case "succeeded":
    case "failed":
    case "rolled-back":
    case "degraded":
    case "superseded":
    case "cancelled":
    case "expired":
      return null;
    default:
      return current.state satisfies never;
  }
}

function backToQueue(current: Lifecycle, newerWaits: boolean): LifecycleChange {
  if (current.stopRequested === "cancelled") return enter("cancelled", STOPPED_AND_FORGOTTEN);
  return newerWaits || current.stopRequested === "superseded" ? enter("superseded", SUPERSEDED) : enter("queued");
}

function askToStop(current: Lifecycle, reason: StopReason): LifecycleChange | null {
  return current.stopRequested === null ? { state: current.state, stopRequested: reason, reason: null } : null;
}

function enter(state: DeploymentState, reason: string | null = null): LifecycleChange {
  return { state, stopRequested: null, reason };
}
