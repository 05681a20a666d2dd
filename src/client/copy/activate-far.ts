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
import { lastLine } from "../ssh/ssh-failure.ts";
import type { FarActivation } from "./far-activation.ts";
import { followFar } from "./follow-far.ts";
import type { SystemEnd } from "./system-end.ts";

export type ActivateFarOptions = FarActivation & {
  /** The program over there: its name or its path. */
  readonly program: string;
  /** More flags of `local activate`. */
  readonly policy: readonly string[];
};

const BY = "nixdeploy";
const CALL_MAX_MS = 60_000;
/** What a boot may take, beyond the times that the policy names. */
const REBOOT_MAX_MS = 15 * 60_000;
/** Everything after the program's name is given to it. */
const RUN_SCRIPT = `exec "$@"`;
/** The same, and it outlives the session, and the login's own limits where systemd can see to that. */
const START_SCRIPT = `if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && systemd-run --quiet --collect "--setenv=PATH=$PATH" "$@" >/dev/null 2>&1; then :
elif command -v setsid >/dev/null 2>&1; then setsid "$@" </dev/null >/dev/null 2>&1 &
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
export async function canBeVisited(
  { side, program, asRoot }: Pick<ActivateFarOptions, "side" | "program" | "asRoot">,
  signal: AbortSignal,
): Promise<boolean> {
  const words = [program, "local", "confirm", "--help"];
  return (await side.run({ text: RUN_SCRIPT, words, asRoot }, signal)).code === 0;
}

/** @throws NixdeployError when nothing was touched, or its end is not heard of · the signal's reason; it goes on there then */
export async function activateFar(options: ActivateFarOptions): Promise<SystemEnd> {
  const { method, side, storePath, asRoot, clock, note, signal } = options;
  const isVisited = method !== "dry-activate" && method !== "boot";
  return await followFar<SystemEnd>({
    ...{ side, clock, note, signal, what: `the activation of ${storePath}` },
    script: { text: RUN_SCRIPT, words: listWords(options, isVisited), asRoot },
    maxMs: 2 * options.activationTimeoutMs + options.confirmWindowMs + REBOOT_MAX_MS,
    hear: (stream, line) => {
      if (stream === "out") return null;
      options.onLine(line);
      if (line === "confirming") return "asks";
      return line === "activating" ? "begun" : null;
    },
    visit: isVisited ? (stopped) => visit(options, stopped) : null,
    readEnd: parseEnd,
    askEnd: (stopped) => askEnd(options, stopped),
    refusal: (stderr) =>
      new NixdeployError("refused", `cannot activate ${storePath} on ${side.name}: ${whyNot(stderr)}`),
  });
}

function listWords(options: ActivateFarOptions, isVisited: boolean): readonly string[] {
  const { program, storePath, method, profilePath, policy } = options;
  const mode = method === "reboot" ? ["--mode", "boot", "--reboot"] : ["--mode", method];
  const visit = isVisited ? ["--await-visit"] : [];
  return [program, "local", "activate", storePath, ...mode, "--profile", profilePath, ...policy, ...visit, "--json"];
}

/** @returns whether that was the proof, or it is not asked for any more */
async function visit(options: ActivateFarOptions, signal: AbortSignal): Promise<boolean> {
  const said = await askProgram(options, ["confirm", options.storePath], signal);
  const found = visitSchema.safeParse(said).data?.visit;
  return found === "confirmed" || found === "too-late" || found === "over";
}

/** @returns null while it is not over; where nobody works at it, somebody is started */
async function askEnd(options: ActivateFarOptions, signal: AbortSignal): Promise<SystemEnd | null> {
  const { side, program, storePath, asRoot } = options;
  const status = statusSchema.safeParse(await askProgram(options, ["status"], signal)).data;
  if (status === undefined) return null;
  const { activation, lastOutcome, profilePath } = status;
  // A record that is finished stays until somebody begins another.
  if (activation !== null && activation.stage !== "finished") {
    if (activation.isSupervised) return null;
    const supervise = [program, "supervise", "--state-dir", status.stateDirectory];
    await side.run({ text: START_SCRIPT, words: supervise, asRoot, fresh: true }, signal);
    return null;
  }
  if (lastOutcome?.storePath === storePath) {
    return { by: BY, outcome: lastOutcome.outcome, reason: asClause(lastOutcome.reason) };
  }
  // A coordinator has taken the outcome: what the profile names tells.
  const isThere = profilePath === storePath;
  const reason = isThere ? "it is live" : "the connection was lost, and it is not what the profile names";
  return { by: BY, outcome: isThere ? "succeeded" : "failed", reason };
}

/** `nixdeploy local …` over there, by a new connection. @returns what it prints, as data */
async function askProgram(
  { side, program, profilePath, asRoot }: ActivateFarOptions,
  command: readonly string[],
  signal: AbortSignal,
): Promise<unknown> {
  const words = [program, "local", ...command, "--profile", profilePath, "--json"];
  const script = { text: RUN_SCRIPT, words, asRoot, fresh: true, deadlineMs: CALL_MAX_MS };
  return parseJson((await side.run(script, signal)).stdout);
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
