/**
 * A system on another machine by the engine of the nixdeploy over there: the same record, supervisor, checks and way back
 * as any deployment (`nixdeploy local activate`). What proves it besides is a new ssh connection, made while the engine
 * waits for it; so a change that shuts us out is undone over there by itself.
 *
 * The session in which it began may die: what becomes of it is then asked over new ones. And who has rebooted a machine that
 * has no unit of ours starts the supervisor again, which would else be that unit's work.
 */
import { z } from "zod";
import { OUTCOMES } from "../../deployment.ts";
import { NixdeployError } from "../../errors.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import { lastLine } from "../ssh/ssh-failure.ts";
import type { Side } from "./side.ts";
import type { SystemEnd, SystemMethod } from "./system-end.ts";

export type ActivateFarOptions = {
  readonly side: Side;
  /** The program over there: its name or its path. */
  readonly program: string;
  readonly storePath: StorePath;
  readonly method: SystemMethod;
  /** Absolute. */
  readonly profilePath: string;
  readonly asRoot: boolean;
  /** More flags of `local activate`. */
  readonly policy: readonly string[];
  readonly confirmWindowMs: number;
  readonly activationTimeoutMs: number;
  readonly onLine: (text: string) => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

const BY = "nixdeploy";
const PAUSE_MS = 1_000;
const CALL_MAX_MS = 60_000;
/** What a boot may take, beyond the times that the policy names. */
const REBOOT_MAX_MS = 15 * 60_000;
/** Everything after the program's name is given to it. */
const RUN_SCRIPT = `exec "$@"`;
/** The same, and it outlives the session. */
const START_SCRIPT = `if command -v setsid >/dev/null 2>&1; then setsid "$@" </dev/null >/dev/null 2>&1 &
else nohup "$@" </dev/null >/dev/null 2>&1 &
fi
`;

const endSchema = z.object({ outcome: z.enum(OUTCOMES), reason: z.string(), storePath: z.string() });
const visitSchema = z.object({ visit: z.enum(["confirmed", "too-early", "too-late", "over"]) });
const statusSchema = z.object({
  profilePath: z.string().nullable(),
  stateDirectory: z.string(),
  activation: z.object({ stage: z.string(), isSupervised: z.boolean() }).nullable(),
  lastOutcome: endSchema.nullable(),
});

/** Whether a program over there is a nixdeploy that can be visited. */
export async function canBeVisited(side: Side, program: string, signal: AbortSignal): Promise<boolean> {
  const result = await side.run({ text: RUN_SCRIPT, words: [program, "local", "confirm", "--help"] }, signal);
  return result.code === 0;
}

/** @throws NixdeployError when nothing was touched · the signal's reason; what has begun goes on over there then */
export async function activateFar(options: ActivateFarOptions): Promise<SystemEnd> {
  const { method, side, signal } = options;
  const isVisited = method !== "dry-activate" && method !== "boot";
  const over = new AbortController();
  const both = AbortSignal.any([signal, over.signal]);
  const awaited = Promise.withResolvers<void>();
  let hasBegun = false;
  const visiting = isVisited
    ? awaited.promise
        .then(() => visit(options, both))
        .catch(() => {
          // It is over, or the end says more.
        })
    : null;
  const begin = side.run(
    {
      ...{ text: RUN_SCRIPT, words: listWords(options, isVisited), asRoot: options.asRoot },
      deadlineMs: 2 * options.activationTimeoutMs + options.confirmWindowMs + REBOOT_MAX_MS,
      onLine: (stream, line) => {
        if (stream === "err" && line === "activating") hasBegun = true;
        if (stream === "err" && line === "confirming") awaited.resolve();
        if (stream === "err") options.onLine(line);
      },
    },
    signal,
  );
  try {
    const result = await begin.catch((error: unknown) => {
      if (!hasBegun || signal.aborted) throw error;
      // The session died, perhaps of the very change; what has begun goes on.
      return null;
    });
    const end = parseEnd(result?.stdout ?? "");
    if (end !== null) return end;
    if (!hasBegun) {
      const why = whyNot(result?.stderr ?? "");
      throw new NixdeployError("refused", `cannot activate ${options.storePath} on ${side.name}: ${why}`);
    }
    awaited.resolve();
    return await awaitEnd(options);
  } finally {
    over.abort(new Error("the activation is over"));
    awaited.resolve();
    await visiting;
  }
}

function listWords(options: ActivateFarOptions, isVisited: boolean): readonly string[] {
  const { program, storePath, method, profilePath, policy } = options;
  const mode = method === "reboot" ? ["--mode", "boot", "--reboot"] : ["--mode", method];
  const visit = isVisited ? ["--await-visit"] : [];
  return [program, "local", "activate", storePath, ...mode, "--profile", profilePath, ...policy, ...visit, "--json"];
}

/** Comes back in over new connections until that was the proof, or is not asked for any more. */
async function visit(
  { side, program, storePath, profilePath, asRoot, clock }: ActivateFarOptions,
  signal: AbortSignal,
) {
  const words = [program, "local", "confirm", storePath, "--profile", profilePath, "--json"];
  for (;;) {
    signal.throwIfAborted();
    const script = { text: RUN_SCRIPT, words, asRoot, fresh: true, deadlineMs: CALL_MAX_MS };
    const said = await side.run(script, signal).catch((error: unknown) => {
      if (signal.aborted) throw error;
      // Not reached: that is what this is about.
      return null;
    });
    const found = visitSchema.safeParse(parseJson(said?.stdout ?? "")).data?.visit;
    if (found === "confirmed" || found === "too-late" || found === "over") return;
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** After the session was lost. */
async function awaitEnd(options: ActivateFarOptions): Promise<SystemEnd> {
  const { side, program, storePath, profilePath, asRoot, clock, signal } = options;
  const ignoreUnlessAborted = (error: unknown) => {
    if (signal.aborted) throw error;
    // Not reached now: it is tried again.
    return null;
  };
  const untilMs = clock.monotonicMs() + 2 * options.activationTimeoutMs + options.confirmWindowMs + REBOOT_MAX_MS;
  const words = [program, "local", "status", "--profile", profilePath, "--json"];
  while (clock.monotonicMs() < untilMs) {
    const script = { text: RUN_SCRIPT, words, asRoot, fresh: true, deadlineMs: CALL_MAX_MS };
    const said = await side.run(script, signal).catch(ignoreUnlessAborted);
    const status = statusSchema.safeParse(parseJson(said?.stdout ?? "")).data;
    // A record that is finished stays until somebody begins another.
    const isOver = status !== undefined && (status.activation === null || status.activation.stage === "finished");
    if (status?.activation?.isSupervised === false && !isOver) {
      const supervise = [program, "supervise", "--state-dir", status.stateDirectory];
      await side.run({ text: START_SCRIPT, words: supervise, asRoot, fresh: true }, signal).catch(ignoreUnlessAborted);
    }
    if (isOver) {
      const { lastOutcome } = status;
      if (lastOutcome?.storePath === storePath) {
        return { by: BY, outcome: lastOutcome.outcome, reason: asClause(lastOutcome.reason) };
      }
      // A coordinator has taken the outcome: what the profile names tells.
      const isThere = status.profilePath === storePath;
      const reason = isThere ? "it is live" : "the connection was lost, and it is not what the profile names";
      return { by: BY, outcome: isThere ? "succeeded" : "failed", reason };
    }
    await clock.sleep(PAUSE_MS, signal);
  }
  throw new NixdeployError(
    "unreachable",
    `cannot tell what became of ${storePath} on ${side.name}: it is not reached`,
    {
      hint: "The machine goes back by itself when nobody confirms. Look there: nixdeploy local status",
    },
  );
}

function parseEnd(stdout: string): SystemEnd | null {
  const end = endSchema.safeParse(parseJson(stdout)).data;
  return end === undefined ? null : { by: BY, outcome: end.outcome, reason: asClause(end.reason) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Nothing of ours.
    return null;
  }
}

function asClause(sentence: string): string {
  return sentence.replace(/\.$/, "");
}

/** The program's own error, without its beginning. */
function whyNot(stderr: string): string {
  const [, message] = /^nixdeploy: (?:cannot [^:]*: )?(.*)$/m.exec(stderr) ?? [];
  return message ?? lastLine(stderr);
}
