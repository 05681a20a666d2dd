/**
 * Executes an activation, step by step, and says truthfully how it ended. What the steps are and what their ends mean
 * is decided in `plan.ts` and `judge.ts`.
 *
 * Every step may be done again: an agent that was killed in the middle begins from the first one. Proof, undo after a
 * lost contact, and reboots are not here yet.
 */
import type { Mode } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { ProgramExit, RunProgram } from "../process.ts";
import { detectSystemType, type SystemType } from "./detect.ts";
import { describeExit, EXIT_LOCK_HELD, judgeSwitch } from "./judge.ts";
import { planActivation, type Step } from "./plan.ts";

export type ActivationRequest = {
  /** Valid in the local store, with its closure. */
  readonly storePath: StorePath;
  readonly mode: Mode;
  /** What the profile named before; null when it named nothing. */
  readonly previousPath: StorePath | null;
  readonly rollbackScript: StorePath | null;
  /** An earlier run of the agent began this activation; what it started may still be at work. */
  readonly isResumed: boolean;
  readonly log: (stream: "agent" | "out" | "err", text: string) => Promise<void>;
};

export type ActivationResult = {
  readonly outcome: "succeeded" | "failed" | "rolled-back" | "degraded";
  /** One sentence. */
  readonly reason: string;
  /** Of the last program whose end mattered; null when none ended by itself. */
  readonly exitCode: number | null;
};

export type Activator = {
  /** Never throws for what programs do; only when this machine's files cannot be read at all. */
  activate(request: ActivationRequest): Promise<ActivationResult>;
};

export type ActivatorDeps = {
  /** Absolute path of the profile's link. */
  readonly profilePath: string;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
  /** The names at the top of a store path; none when it is a file, or gone. */
  readonly readNames: (path: StorePath) => Promise<ReadonlySet<string>>;
  readonly readProfilePath: () => Promise<StorePath | null>;
  readonly readCurrentSystem: () => Promise<StorePath | null>;
};

/** Setting a profile is one symlink; more is a store that hangs. */
const SET_PROFILE_MAX_MS = 2 * 60_000;
const SWITCH_MAX_MS = 30 * 60_000;
const CHECK_MAX_MS = 10 * 60_000;
/** Between tries while an activation that an earlier run started is still at work. */
const LOCK_RETRY_MS = 5_000;

export function createActivator(deps: ActivatorDeps): Activator {
  return {
    async activate(request) {
      const type = detectSystemType(await deps.readNames(request.storePath));
      const previousType = await readTypeOf(request.previousPath, deps);
      const plan = planActivation({ ...request, type, previousType, profilePath: deps.profilePath });
      if (plan.kind === "refused") {
        return failed(`cannot activate ${request.storePath}: ${plan.reason}`, null);
      }
      const systemBefore = await deps.readCurrentSystem();
      const context: Context = { deps, request, type, systemBefore };
      for (const step of plan.steps) {
        const end = await runStep(step, context);
        if (end !== null) return end;
      }
      return {
        outcome: "succeeded",
        reason: describeSuccess(request, type),
        exitCode: plan.steps.length === 0 ? null : 0,
      };
    },
  };
}

type Context = {
  readonly deps: ActivatorDeps;
  readonly request: ActivationRequest;
  readonly type: SystemType;
  readonly systemBefore: StorePath | null;
};

/** @returns null when the activation goes on, else how it ended */
async function runStep(step: Step, context: Context): Promise<ActivationResult | null> {
  switch (step.kind) {
    case "set-profile":
      return await runSetProfile(context);
    case "switch":
      return await runSwitch(step.action, context);
    case "check-script":
      return await runCheckScript(step.script, context);
    default:
      return step satisfies never;
  }
}

async function runSetProfile(context: Context): Promise<ActivationResult | null> {
  const { deps, request } = context;
  const exit = await setProfile(request.storePath, context);
  if (isSuccess(exit) && (await deps.readProfilePath()) === request.storePath) return null;
  const reason = `setting the profile ${deps.profilePath} ${describeExit(exit)}`;
  return await putBackAndEnd({ outcome: "failed", reason, exit }, context);
}

async function runSwitch(action: Mode, context: Context): Promise<ActivationResult | null> {
  const { deps, request } = context;
  const exit = await runSwitchProgram(request.storePath, action, context);
  const verdict = judgeSwitch({
    action,
    exit,
    storePath: request.storePath,
    systemBefore: context.systemBefore,
    systemNow: await deps.readCurrentSystem(),
  });
  if (verdict.kind === "good") return null;
  if (verdict.putProfileBack) return await putBackAndEnd({ ...verdict, exit }, context);
  return { outcome: verdict.outcome, reason: sentence(verdict.reason), exitCode: codeOf(exit) };
}

/** The script that judges the new system: when it says no, everything goes back to where it was. */
async function runCheckScript(script: StorePath, context: Context): Promise<ActivationResult | null> {
  const exit = await runLogged({ command: script, args: [], deadlineMs: CHECK_MAX_MS }, context);
  if (isSuccess(exit)) return null;
  const reason = `the rollback script ${describeExit(exit)}`;
  const { deps, request, type } = context;
  const { previousPath } = request;
  if (previousPath === null) {
    return degraded(`${reason}, and there is no earlier version to go back to`, exit);
  }
  const isProfileBack = await putProfileBack(context);
  if (type === "nixos") {
    const undo = await runSwitchProgram(previousPath, request.mode === "test" ? "test" : "switch", context);
    const isSystemBack = isSuccess(undo) && (await deps.readCurrentSystem()) === previousPath;
    if (!isSystemBack) return degraded(`${reason}, and going back to ${previousPath} ${describeExit(undo)}`, exit);
  }
  if (!isProfileBack) return degraded(`${reason}, and the profile could not be put back to ${previousPath}`, exit);
  return { outcome: "rolled-back", reason: sentence(`${reason}; back on ${previousPath}`), exitCode: codeOf(exit) };
}

/** While an earlier run's activation holds the lock, waits for it: its end is part of this deployment. */
async function runSwitchProgram(system: StorePath, action: Mode, context: Context): Promise<ProgramExit> {
  const { clock } = context.deps;
  const program = { command: `${system}/bin/switch-to-configuration`, args: [action], deadlineMs: SWITCH_MAX_MS };
  const giveUpAtMs = clock.monotonicMs() + SWITCH_MAX_MS;
  for (;;) {
    const exit = await runLogged(program, context);
    const isOurs = context.request.isResumed && exit.kind === "exited" && exit.code === EXIT_LOCK_HELD;
    if (!isOurs || clock.monotonicMs() >= giveUpAtMs) return exit;
    await clock.sleep(LOCK_RETRY_MS, new AbortController().signal);
  }
}

type BadEnd = { readonly outcome: "failed" | "degraded"; readonly reason: string; readonly exit: ProgramExit };

/** Ends as said, once the profile names again what it named before; degraded when it does not. */
async function putBackAndEnd(end: BadEnd, context: Context): Promise<ActivationResult> {
  const { previousPath } = context.request;
  if (await putProfileBack(context))
    return { outcome: end.outcome, reason: sentence(end.reason), exitCode: codeOf(end.exit) };
  const target = previousPath === null ? "its state from before, in which it did not exist" : previousPath;
  return degraded(
    `${end.reason}; the profile ${context.deps.profilePath} could not be put back to ${target}`,
    end.exit,
  );
}

/** @returns whether the profile names what it named before */
async function putProfileBack(context: Context): Promise<boolean> {
  const { deps, request } = context;
  if ((await deps.readProfilePath()) === request.previousPath) return true;
  if (request.previousPath === null) return false;
  await setProfile(request.previousPath, context);
  return (await deps.readProfilePath()) === request.previousPath;
}

async function setProfile(storePath: StorePath, context: Context): Promise<ProgramExit> {
  const args = ["--profile", context.deps.profilePath, "--set", storePath];
  return await runLogged({ command: "nix-env", args, deadlineMs: SET_PROFILE_MAX_MS }, context);
}

type Program = { readonly command: string; readonly args: readonly string[]; readonly deadlineMs: number };

async function runLogged(program: Program, { deps, request }: Context): Promise<ProgramExit> {
  await request.log("agent", `$ ${[program.command, ...program.args].join(" ")}`);
  const exit = await deps.run({ ...program, environment: deps.environment, clock: deps.clock, onLine: request.log });
  if (!isSuccess(exit)) await request.log("agent", `${program.command} ${describeExit(exit)}`);
  return exit;
}

async function readTypeOf(path: StorePath | null, { readNames }: ActivatorDeps): Promise<SystemType | null> {
  if (path === null) return null;
  const names = await readNames(path);
  // A path that is gone says nothing about the type.
  return names.size === 0 ? null : detectSystemType(names);
}

function describeSuccess({ storePath, mode }: ActivationRequest, type: SystemType): string {
  switch (mode) {
    case "switch":
      return `${storePath} is live.`;
    case "boot":
      return type === "nixos" ? `${storePath} takes effect at the next reboot.` : `${storePath} is live.`;
    case "test":
      return type === "nixos"
        ? `${storePath} is live until the next reboot.`
        : `${storePath} is in the store; the profile was left alone, as mode test asks.`;
    case "dry-activate":
      return `${storePath} is in the store; nothing was changed, as mode dry-activate asks.`;
    default:
      return mode satisfies never;
  }
}

function isSuccess(exit: ProgramExit): boolean {
  return exit.kind === "exited" && exit.code === 0;
}

function codeOf(exit: ProgramExit): number | null {
  return exit.kind === "exited" ? exit.code : null;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function failed(reason: string, exitCode: number | null): ActivationResult {
  return { outcome: "failed", reason: sentence(reason), exitCode };
}

function degraded(reason: string, exit: ProgramExit): ActivationResult {
  return { outcome: "degraded", reason: sentence(reason), exitCode: codeOf(exit) };
}
