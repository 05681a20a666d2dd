/**
 * The record of an activation: everything that whoever finishes or undoes it must know, on disk before each stage
 * begins (`STATE_DIR/activation.json`; temporary file, fsync, rename, fsync of the folder). It outlives the agent, the
 * supervisor and a power cut, and any of them, in any version that knows it, goes on from it.
 *
 * Versioned: fields may be added, which older versions ignore; `version` changes only when an old reader would go wrong.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { FAULTS, INHIBITOR_POLICIES, MODES, OUTCOMES } from "../../deployment.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { parseAgentName, parseDeploymentId } from "../../names.ts";
import { parsedWith, storePathSchema } from "../../protocol.ts";
import { unitChangesSchema } from "../../unit-changes.ts";
import { SYSTEM_TYPES } from "../machine/detect.ts";
import { syncDirectory, writeDurableFile } from "../machine/durable-file.ts";
import { isMissing } from "../machine/system-error.ts";

export const BOOT_LOADERS = ["systemd-boot", "grub"] as const;

export const STAGES = [
  /** The new version's own check runs; nothing is touched. */
  "checking",
  /** The new version is made live, and nothing of it permanent that a reboot would keep. */
  "activating",
  /** It takes effect by a reboot: the next boot is made to try it, once where the boot loader can. */
  "arming",
  /** The machine goes down, and is expected back. */
  "rebooting",
  /** Live; the proof is awaited. */
  "confirming",
  /** Proved; profile and boot entry are made to name it. */
  "committing",
  /** Back to exactly what was recorded. */
  "undoing",
  /** It was booted, so a part of the way back is a reboot; then `undoing` again. */
  "returning",
  "finished",
] as const;
export type Stage = (typeof STAGES)[number];

const count = z.number().int().nonnegative();
/** Less than a report may hold. */
export const SENTENCE_CHARACTERS_MAX = 4_000;
const sentence = z.string().max(SENTENCE_CHARACTERS_MAX);

/** Whether the boot loader can try a system for one boot and fall back by itself; found before anything is touched. */
const trialSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("one-shot"),
    loader: z.enum(BOOT_LOADERS),
    /** What its variable for the default named before, to be put back; null: nothing. */
    pinnedBefore: z.string().nullable(),
    /** What every boot but the one of the trial boots. */
    fallback: z.object({ system: storePathSchema, entry: z.string() }),
  }),
  /** Why it cannot, a clause. */
  z.object({ kind: z.literal("none"), why: sentence }),
]);
export type Trial = z.output<typeof trialSchema>;

const baseSchema = z.object({
  version: z.literal(1),
  deploymentId: parsedWith(parseDeploymentId),
  agentName: parsedWith(parseAgentName),
  coordinatorUrl: z.string(),
  /** Absolute path of the profile's link. */
  profilePath: z.string(),
  storePath: storePathSchema,
  type: z.enum(SYSTEM_TYPES),
  mode: z.enum(MODES),
  rollbackScript: storePathSchema.nullable(),
  /** `HealthCheck`s of the spec and of the device; one that this version does not know must not hide the rest. */
  healthChecks: z.array(z.unknown()).optional(),
  /** What there was before; the undo goes exactly there. */
  previous: z.object({
    profile: storePathSchema.nullable(),
    /** /run/current-system */
    current: storePathSchema.nullable(),
    /** Failed already, so they say nothing about the new version; null where no service manager tells. */
    failedUnits: z.array(z.string()).nullable(),
  }),
  policy: z.object({
    onUnitFailure: z.enum(["rollback", "keep"]),
    confirmWindowMs: count,
    activationTimeoutMs: count,
    reboot: z.boolean().optional(),
    inhibitors: z.enum(INHIBITOR_POLICIES).optional(),
    allowUnprovenBoot: z.boolean().optional(),
    allowAgentRemoval: z.boolean().optional(),
  }),
  /**
   * Who logs in to prove it: the agent as the new system starts it (then its unit), or the supervisor; or nobody, when
   * it was started at the machine itself (then the agent's unit, which is still started again, if there is one).
   */
  prover: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("agent"), unit: z.string() }),
    z.object({ kind: z.literal("supervisor") }),
    z.object({
      kind: z.literal("none"),
      unit: z.string().nullable(),
      /** Somebody must come back in and confirm it (`nixdeploy local confirm`): it was started from afar. */
      awaitsVisit: z.boolean().optional(),
    }),
  ]),
  /** The agent's unit when the new system lacks it, which the policy allows: nobody but the supervisor is left then. */
  removedAgentUnit: z.string().optional(),
  /** For the programs that are run. Holds no secret. */
  environment: z.record(z.string(), z.string()),
  fetchedBytes: count.nullable(),

  stage: z.enum(STAGES),
  /** Begun tries of this stage. */
  tries: count,
  bootId: z.string(),
  /** Uptime at which this stage must have ended (confirming: the confirm window); null where it has no deadline. */
  deadlineUptimeMs: count.nullable(),
  /** Profile or boot entry may name the new version. */
  commitBegun: z.boolean(),
  /** Units failed, and the policy was to keep it. */
  unitsFailed: z.boolean(),
  /** What a person should know although it is good. */
  note: sentence.nullable(),
  /** Of a dry activation: what it says it would do. */
  unitChanges: unitChangesSchema.optional(),
  /** Why it is undone, or how it ended. */
  reason: sentence.nullable(),
  /**
   * Why it is undone, for those who decide: `unconfirmed`, nothing but the confirmation is missing; `elsewhere`, it is
   * not what the version did (a cancel, a power cut).
   */
  cause: z.enum(["version", "unconfirmed", "elsewhere"]).nullable().default(null),
  outcome: z.enum(OUTCOMES).nullable(),
  fault: z.enum(FAULTS).nullable().default(null),
  exitCode: z.number().int().nullable(),

  /** The variant of the new system that is made live, because the machine runs one of that name; absent: none. */
  specialisation: z.object({ name: z.string(), path: storePathSchema }).optional(),
  /** It takes effect by a reboot, which is part of this activation. */
  byReboot: z.boolean().optional(),
  /** Absent where no reboot matters, or before it was looked at. */
  trial: trialSchema.optional(),
  /** Reboots on the way back. */
  returns: count.optional(),
});

const recordSchema = baseSchema.extend({
  /** One that waited for its reboot when this activation began (`boot-trial.ts`); it waits again after an undo. */
  replacedTrial: baseSchema.optional(),
});
export type ActivationRecord = z.output<typeof recordSchema>;
/** See `cause` of the record. */
export type Cause = NonNullable<ActivationRecord["cause"]>;

const FILE_NAME = "activation.json";
/** Holds the id of the deployment that was cancelled. */
export const CANCEL_FILE_NAME = "activation-cancel";
/** See `proof.ts`. */
export const PROOF_FILE_NAME = "proof.json";

/** @returns null when there is none. @throws NixdeployError("host") when it cannot be read */
export async function readRecord(stateDirectory: string): Promise<ActivationRecord | null> {
  return await readRecordFile(join(stateDirectory, FILE_NAME));
}

/** A record at another place. @throws as `readRecord` */
export async function readRecordFile(path: string): Promise<ActivationRecord | null> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    if (isMissing(error)) return null;
    const why = error instanceof z.ZodError ? z.prettifyError(error) : describeError(error);
    throw new NixdeployError("host", `cannot read the record of an activation, ${path}: ${why}`, {
      hint: "Look at what the machine runs; removing the file makes the agent forget the activation.",
      cause: error,
    });
  }
}

/** Durable on return. @throws the system's error */
export async function writeRecord(stateDirectory: string, record: ActivationRecord): Promise<void> {
  await writeRecordFile(join(stateDirectory, FILE_NAME), record);
}

/** Durable on return. @throws the system's error */
export async function writeRecordFile(path: string, record: ActivationRecord): Promise<void> {
  await writeDurableFile({ path, text: `${JSON.stringify(record, null, 2)}\n`, mode: 0o600 });
}

/** Forgets it, with everything that belongs to it. */
export async function removeRecord(stateDirectory: string): Promise<void> {
  for (const name of [CANCEL_FILE_NAME, PROOF_FILE_NAME, FILE_NAME]) {
    for (const path of [join(stateDirectory, `${name}.new`), join(stateDirectory, name)])
      await rm(path, { force: true });
    // The record goes last, so that nothing is left that nobody looks for.
    await syncDirectory(stateDirectory);
  }
}

/** Asks whoever supervises to go back. */
export async function requestCancel(stateDirectory: string, deploymentId: string): Promise<void> {
  await writeDurableFile({ path: join(stateDirectory, CANCEL_FILE_NAME), text: deploymentId, mode: 0o600 });
}

export async function isCancelRequested(stateDirectory: string, deploymentId: string): Promise<boolean> {
  try {
    return (await readFile(join(stateDirectory, CANCEL_FILE_NAME), "utf8")) === deploymentId;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}
