/**
 * How a type of system is checked, made live, made permanent and undone. One file per type implements it; the order of
 * the calls, and what happens when one fails or is interrupted, is decided in `engine.ts`.
 *
 * Every call may be made again: whoever was killed in the middle of one begins it anew.
 */
import { rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { describeError } from "../../../errors.ts";
import { parseGenerationLink } from "../../../nix/profile.ts";
import type { StorePath } from "../../../nix/store-path.ts";
import type { Clock } from "../../../runtime.ts";
import type { UnitChanges } from "../../../unit-changes.ts";
import { STORE_PLACES, syncFileSystems } from "../../machine/file-systems.ts";
import { listNames } from "../../machine/look.ts";
import type { ProgramExit, RunProgram } from "../../machine/process.ts";
import { codeOf, describeExit, isSuccess } from "../../machine/program-exit.ts";
import type { BootLoader } from "../boot/boot-loader.ts";
import { BOOT_DIRECTORIES } from "../boot/boot-space.ts";
import type { ActivationRecord, Cause, Trial } from "../record.ts";

export type StageEnd =
  | {
      readonly kind: "good";
      readonly exitCode: number | null;
      /** It is live, but units failed, and the policy is to keep it. */
      readonly unitsFailed?: boolean;
      /** What a person should know although it is good. */
      readonly note?: string;
      /** Not live, and not to be had without a reboot. */
      readonly byReboot?: boolean;
      /** Of a check: what the boot loader can do about it. */
      readonly trial?: Trial;
      /** Of a commit: the next reboot tries it, and only then it is proved. */
      readonly waitsForReboot?: boolean;
      /** Of a dry activation: what it says it would do. */
      readonly unitChanges?: UnitChanges;
      /** Of an undo for want of a confirmation: whether the old version reaches the coordinator. */
      readonly reachesCoordinator?: boolean;
    }
  /** Nothing was touched. The reason is a sentence without its full stop. */
  | Bad<"refused">
  | Bad<"bad">
  /** Of an undo: everything permanent is back, and the rest takes a reboot. */
  | { readonly kind: "reboot" };

type Bad<Kind> = {
  readonly kind: Kind;
  readonly reason: string;
  readonly exitCode: number | null;
  /** Default: "version". */
  readonly cause?: Cause;
};

/** All is well, and no program was run whose exit code would say more. */
export const DONE = { kind: "good", exitCode: null } as const satisfies StageEnd;

export type Driver = {
  /** May refuse while nothing is touched. In mode dry-activate: says what would be done. */
  check(): Promise<StageEnd>;
  /** Makes it live, and nothing of it permanent that a reboot would keep. */
  activate(): Promise<StageEnd>;
  /** Makes the next boot, and that one alone where the boot loader can, a boot of it. Absent: a type that is not booted. */
  arm?(): Promise<StageEnd>;
  /** Makes it what the next boot, and the profile, name. */
  commit(): Promise<StageEnd>;
  /** Takes back what was pinned for a trial that somebody else has overtaken, and nothing more. */
  giveUpTrial?(): Promise<StageEnd>;
  /** Goes back to exactly what was recorded, and verifies that. */
  undo(): Promise<StageEnd>;
  /** Whether the machine runs the new version now. */
  runsNew(): Promise<boolean>;
};

export type DriverDeps = {
  readonly record: ActivationRecord;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly readProfilePath: () => Promise<StorePath | null>;
  readonly readCurrentSystem: () => Promise<StorePath | null>;
  readonly boot: BootDeps;
  readonly readNames: (path: StorePath) => Promise<ReadonlySet<string>>;
  /** Failed units by name; null where no service manager tells. */
  readonly readFailedUnits: () => Promise<readonly string[] | null>;
  readonly hasUnit: (system: StorePath, unit: string) => Promise<boolean>;
  readonly log: (stream: "agent" | "out" | "err", text: string) => Promise<void>;
};

/** The way back gets this long, however short the new version's time was. */
const UNDO_MIN_MS = 10 * 60_000;

/** How long a version's own script may take, in ms: the new one's forwards, the previous one's on the way back. */
export function timeForScript({ stage, policy }: ActivationRecord): number {
  const { activationTimeoutMs } = policy;
  return stage === "undoing" ? Math.max(UNDO_MIN_MS, activationTimeoutMs) : activationTimeoutMs;
}

/** What is asked about boots; of NixOS alone. */
export type BootDeps = {
  /** /run/booted-system */
  readonly readBootedSystem: () => Promise<StorePath | null>;
  /** What of a system differs from what was booted, such as "kernel"; none when a reboot would change nothing. */
  readonly readUnproved: (system: StorePath) => Promise<readonly string[]>;
  /** The names of what must not change while the machine runs, and would. */
  readonly readInhibitors: (from: StorePath, to: StorePath) => Promise<readonly string[]>;
  /** @returns why none can be used, a clause. @throws NixdeployError("host") when one is there and cannot be asked */
  readonly findBootLoader: (run: RunProgram) => Promise<BootLoader | string>;
};

/** Setting a profile is one symlink; more is a store that hangs. */
const SET_PROFILE_MAX_MS = 2 * 60_000;

export type Program = {
  readonly command: string;
  readonly args: readonly string[];
  readonly deadlineMs: number;
  /** Ends it early. */
  readonly stop?: AbortSignal;
};

/** Runs a program with its output in the deployment's log, the command line first. */
export async function runLogged(
  program: Program,
  deps: DriverDeps,
  onLine?: (text: string) => void,
): Promise<ProgramExit> {
  await deps.log("agent", `$ ${[program.command, ...program.args].join(" ")}`);
  const exit = await deps.run({
    ...program,
    environment: deps.record.environment,
    clock: deps.clock,
    onLine: async (stream, text) => {
      onLine?.(text);
      await deps.log(stream, text);
    },
  });
  if (!isSuccess(exit)) await deps.log("agent", `${program.command} ${describeExit(exit)}`);
  return exit;
}

/** Makes the profile name this path, unless it does. */
export async function setProfile(storePath: StorePath, deps: DriverDeps): Promise<StageEnd> {
  const { profilePath } = deps.record;
  if ((await deps.readProfilePath()) === storePath) return DONE;
  const args = ["--profile", profilePath, "--set", storePath];
  const exit = await runLogged({ command: "nix-env", args, deadlineMs: SET_PROFILE_MAX_MS }, deps);
  if (isSuccess(exit) && (await deps.readProfilePath()) === storePath) return { kind: "good", exitCode: 0 };
  return { kind: "bad", reason: `setting the profile ${profilePath} ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

/**
 * Profile, boot loader, and what else the scripts wrote, have reached the disk, or it was no good end. On the way back a
 * disk that takes nothing is only said.
 */
export async function makeDurable(end: StageEnd, deps: DriverDeps): Promise<StageEnd> {
  if (end.kind !== "good") return end;
  const { type, stage, profilePath, environment } = deps.record;
  const places = type === "nixos" ? ["/etc", ...BOOT_DIRECTORIES] : [environment["HOME"] ?? "/"];
  try {
    await syncFileSystems({ ...deps, environment, places: [dirname(profilePath), ...STORE_PLACES, ...places] });
    return end;
  } catch (error) {
    if (stage !== "undoing") return { kind: "bad", reason: describeError(error), exitCode: null, cause: "elsewhere" };
    await deps.log("agent", describeError(error));
    return end;
  }
}

/** Removes the link and its generations, all of which this activation made. */
export async function removeProfile(deps: DriverDeps): Promise<StageEnd> {
  const { profilePath } = deps.record;
  await rm(profilePath, { force: true });
  const directory = dirname(profilePath);
  for (const name of await listNames(directory)) {
    if (parseGenerationLink(name)?.profile === basename(profilePath)) await rm(join(directory, name), { force: true });
  }
  if ((await deps.readProfilePath()) === null) return DONE;
  return { kind: "bad", reason: `the profile ${profilePath} could not be removed`, exitCode: null };
}
