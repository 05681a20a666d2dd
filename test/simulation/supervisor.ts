/**
 * The double of a supervisor: a process that carries an activation out as far as an agent can see it. It prints, makes
 * the version live, asks the coordinator for the proof by a login of its own, and goes back when it is not given, when
 * somebody cancels, or when the version is a bad one. Killed anywhere, the next one goes on.
 */
import { join } from "node:path";
import {
  type ActivationRecord,
  isCancelRequested,
  readRecord,
  writeRecord,
} from "../../src/agent/activation/record.ts";
import { openRecorded } from "../../src/agent/activation/supervise.ts";
import { type Journal, measurePhases } from "../../src/agent/journal/journal.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import type { DeploymentId } from "../../src/names.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import type { SeededRandom } from "../support/seeded-random.ts";
import type { SimulatedProcess } from "./processes.ts";

/** What an activation changes. */
export type Hardware = {
  profile: StorePath | null;
  /** How many activate right now; more than one must never be. */
  activating: number;
  /** What was made live, oldest first. */
  readonly activated: { readonly deploymentId: DeploymentId; readonly storePath: StorePath }[];
  /** Every line that an activation printed, oldest first. */
  readonly said: Said[];
};

export type Said = {
  readonly deploymentId: DeploymentId;
  readonly text: string;
  readonly atMs: number;
  /** Who is killed may take with him what he has just said. */
  readonly by: SimulatedProcess;
};

export type SupervisorDeps = {
  readonly process: SimulatedProcess;
  readonly stateDirectory: string;
  readonly hardware: Hardware;
  readonly random: SeededRandom;
  /** @returns whether the coordinator takes this login for the proof. @throws when it is out of reach */
  readonly prove: (deploymentId: DeploymentId, signal: AbortSignal) => Promise<boolean>;
};

type End = Pick<ActivationRecord, "outcome" | "reason" | "fault" | "exitCode">;

const LINES_MAX = 30;
const PROOF_INTERVAL_MS = 4_000;
/** Much of what an activation does prints nothing. */
const SILENCE_MS = { min: 5_000, max: 60_000 };

export async function supervise(deps: SupervisorDeps): Promise<void> {
  const { process: own, stateDirectory, hardware } = deps;
  const { clock } = own;
  using held = tryLockFile(join(stateDirectory, "activation.lock"), 0o700);
  const record = await readRecord(stateDirectory);
  if (held === null || record === null) return;
  await using opened = await openRecorded(record, { stateDirectory, clock });
  if (opened === null) return;
  const { journal } = opened;
  if (journal.outcome !== null) return;
  hardware.activating += 1;
  try {
    const end = record.stage === "finished" ? record : await activate(record, journal, deps);
    await writeRecord(stateDirectory, { ...record, ...end, stage: "finished" });
    await journal.finish({
      outcome: end.outcome ?? "degraded",
      reason: end.reason ?? "",
      exitCode: end.exitCode,
      ...(end.fault === null ? {} : { fault: end.fault }),
      ...{ previousPath: record.previous.profile, fetchedBytes: record.fetchedBytes },
      phaseMs: measurePhases(journal, clock.nowMs()),
    });
  } finally {
    hardware.activating -= 1;
  }
}

async function activate(record: ActivationRecord, journal: Journal, deps: SupervisorDeps): Promise<End> {
  const { random, hardware, process: own } = deps;
  const { deploymentId, storePath, previous } = record;
  const isBad = random.chance(0.1);
  const isUnclean = random.chance(0.05);
  await print(journal, deps);
  if (await isCancelled(record, deps)) return await goBack(journal, record, { ...deps, ...CANCELLED });
  hardware.profile = storePath;
  hardware.activated.push({ deploymentId, storePath });
  await journal.phase({ phase: "confirming", previousPath: previous.profile });
  await print(journal, deps);
  if (isBad) return await goBack(journal, record, { ...deps, reason: "Units failed.", fault: "version" });
  if (isUnclean) return { outcome: "degraded", reason: "Units failed, and are kept.", fault: "version", exitCode: 4 };
  const untilMs = own.clock.monotonicMs() + record.policy.confirmWindowMs;
  while (own.clock.monotonicMs() < untilMs) {
    const isProved = await deps.prove(deploymentId, own.death).catch(() => false);
    if (isProved) return { outcome: "succeeded", reason: "It is live.", fault: null, exitCode: 0 };
    if (await isCancelled(record, deps)) return await goBack(journal, record, { ...deps, ...CANCELLED });
    await own.clock.sleep(random.below(PROOF_INTERVAL_MS), own.death);
  }
  return await goBack(journal, record, { ...deps, reason: "Nobody confirmed it.", fault: "contact" });
}

const CANCELLED = { reason: "Cancelled.", fault: null } as const;

async function goBack(
  journal: Journal,
  { previous }: ActivationRecord,
  why: SupervisorDeps & { readonly reason: string; readonly fault: End["fault"] },
): Promise<End> {
  await journal.phase({ phase: "rolling-back", previousPath: previous.profile });
  await print(journal, why);
  why.hardware.profile = previous.profile;
  return { outcome: "rolled-back", reason: why.reason, fault: why.fault, exitCode: 1 };
}

async function isCancelled({ deploymentId }: ActivationRecord, { stateDirectory }: SupervisorDeps): Promise<boolean> {
  return await isCancelRequested(stateDirectory, deploymentId);
}

async function print(journal: Journal, { random, process: own, hardware }: SupervisorDeps): Promise<void> {
  const { deploymentId } = journal.offer;
  const lines = random.below(LINES_MAX);
  const at = random.below(1_000_000);
  for (let line = 0; line < lines; line += 1) {
    const text = `line ${at}.${line}`;
    hardware.said.push({ deploymentId, text, atMs: own.clock.nowMs(), by: own });
    await journal.log(random.chance(0.5) ? "out" : "err", text);
    if (random.chance(0.15)) await own.clock.sleep(random.durationMs(10, 3_000), own.death);
  }
  if (random.chance(0.2)) await own.clock.sleep(random.durationMs(SILENCE_MS.min, SILENCE_MS.max), own.death);
}
