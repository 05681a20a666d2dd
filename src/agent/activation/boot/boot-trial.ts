/**
 * A system that waits for a reboot to prove itself (`STATE_DIR/boot-trial.json`), after the deployment of it has ended:
 * installed with `--mode boot`, or live with a kernel that was not booted yet. The record is that of an activation which
 * is rebooting, only that nobody knows when; whoever finds another boot id carries it on as such, with the engine's
 * own table: the proof within the confirm window makes it the default, anything else goes back to what booted last.
 *
 * Nobody is told an outcome: the deployment has had its own. What the machine runs afterwards is in the agent's state.
 */
import { readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncDirectory } from "../../machine/durable-file.ts";
import { type ActivationRecord, readRecordFile, writeRecordFile } from "../record.ts";

const FILE_NAME = "boot-trial.json";

/** @returns null when none waits. @throws NixdeployError("host") when it cannot be read */
export async function readBootTrial(stateDirectory: string): Promise<ActivationRecord | null> {
  return await readRecordFile(join(stateDirectory, FILE_NAME));
}

/** Durable on return. @throws the system's error */
export async function writeBootTrial(stateDirectory: string, record: ActivationRecord): Promise<void> {
  await writeRecordFile(join(stateDirectory, FILE_NAME), record);
}

/** Gone for good on return; nothing when there is none. */
export async function removeBootTrial(stateDirectory: string): Promise<void> {
  const path = join(stateDirectory, FILE_NAME);
  const names = await readdir(stateDirectory);
  if (!names.some((name) => name.startsWith(FILE_NAME))) return;
  for (const each of [`${path}.new`, path]) await rm(each, { force: true });
  await syncDirectory(dirname(path));
}

/** Whether it has had its boot, and is to be decided; else it waits. */
export function isDue(trial: ActivationRecord, bootId: string): boolean {
  return trial.stage !== "rebooting" || trial.bootId !== bootId;
}

/** What waits after a commit that the next reboot tries. Pure. */
export function createBootTrial(committed: ActivationRecord): ActivationRecord {
  const { replacedTrial: _, ...record } = committed;
  const { trial, previous } = record;
  // Not to a system that itself only waited for its boot.
  const fallback = trial?.kind === "one-shot" ? trial.fallback.system : (previous.profile ?? previous.current);
  return {
    ...record,
    previous: { ...previous, profile: fallback, current: fallback },
    ...{ stage: "rebooting", tries: 0, deadlineUptimeMs: null, byReboot: true, commitBegun: true },
    ...{ note: null, reason: null, outcome: null, exitCode: null },
  };
}
