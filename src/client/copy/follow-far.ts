/**
 * Watches work on another machine that goes on by itself, whatever becomes of the ssh session in which it began: from its
 * beginning, over new connections that prove to it that we still get in, to its end, asked for over new ones where the
 * session was lost. Knows nothing of what the work is.
 */
import { NixdeployError } from "../../errors.ts";
import type { Clock } from "../../runtime.ts";
import type { Script, Side } from "./side.ts";

export type FarWork<End> = {
  readonly side: Side;
  /** What is done, for messages: "the activation of /nix/store/…". */
  readonly what: string;
  /** Runs until the end, which it prints. */
  readonly script: Script;
  /** What a line of it says: that something is touched from now on, that a visit is waited for, or neither. */
  readonly hear: (stream: "out" | "err", line: string) => "begun" | "asks" | null;
  /** By a new connection. @returns whether it is the last one; null: none is wanted */
  readonly visit: ((signal: AbortSignal) => Promise<boolean>) | null;
  /** What the script printed. */
  readonly readEnd: (stdout: string) => End | null;
  /** By a new connection, where the script's was lost; null: not yet. */
  readonly askEnd: (signal: AbortSignal) => Promise<End | null>;
  /** Why nothing was touched. */
  readonly refusal: (stderr: string) => NixdeployError;
  /** What it may take. */
  readonly maxMs: number;
  readonly note: (text: string) => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

const PAUSE_MS = 1_000;

/** @throws NixdeployError when nothing was touched, or its end is not heard of · the signal's reason; it goes on there then */
export async function followFar<End>(work: FarWork<End>): Promise<End> {
  const { side, clock, signal } = work;
  const untilMs = clock.monotonicMs() + work.maxMs;
  const over = new AbortController();
  const asked = Promise.withResolvers<void>();
  let hasBegun = false;
  const visiting = asked.promise
    .then(() => visitUntilTold(work, AbortSignal.any([signal, over.signal])))
    .catch(() => {
      // It is over, or the end says more.
    });
  const onLine = (stream: "out" | "err", line: string) => {
    const said = work.hear(stream, line);
    if (said !== null) hasBegun = true;
    if (said === "asks") asked.resolve();
  };
  try {
    const script = { ...work.script, deadlineMs: work.maxMs, onLine };
    const result = await side.run(script, signal).catch((error: unknown) => {
      if (!hasBegun || signal.aborted) throw error;
      // The session died, perhaps of the very change.
      return null;
    });
    const end = work.readEnd(result?.stdout ?? "");
    if (end !== null) return end;
    if (!hasBegun) throw work.refusal(result?.stderr ?? "");
    asked.resolve();
    return await askUntil(untilMs, work);
  } catch (error) {
    if (signal.aborted && hasBegun) {
      work.note(
        `${side.name}: ${work.what} goes on there without this command; what nobody proves goes back by itself`,
      );
    }
    throw error;
  } finally {
    over.abort(new Error("it is over"));
    asked.resolve();
    await visiting;
  }
}

async function visitUntilTold<End>({ visit, clock }: FarWork<End>, signal: AbortSignal): Promise<void> {
  if (visit === null) return;
  while (!(await visit(signal).catch(() => false))) await clock.sleep(PAUSE_MS, signal);
}

async function askUntil<End>(untilMs: number, work: FarWork<End>): Promise<End> {
  const { side, what, clock, signal } = work;
  while (clock.monotonicMs() < untilMs) {
    const end = await work.askEnd(signal).catch((error: unknown) => {
      if (signal.aborted) throw error;
      // Not reached now: it is tried again.
      return null;
    });
    if (end !== null) return end;
    await clock.sleep(PAUSE_MS, signal);
  }
  throw new NixdeployError("unreachable", `cannot tell what became of ${what} on ${side.name}: it is not reached`, {
    hint: "What nobody proves goes back by itself. Look there when it is reached again: readlink /run/current-system",
  });
}
