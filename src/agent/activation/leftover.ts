/**
 * The program that a supervisor runs for an activation, on record while it runs (`STATE_DIR/activation-program.json`), so
 * that the next supervisor, after this one was killed, stops it before it begins the stage anew: two scripts would
 * work against each other, and one that hangs would keep the machine's lock for ever. Where systemd runs supervisors,
 * it has stopped the program with them.
 *
 * Need not survive a power cut, which stops every program, so nothing is synced.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../runtime.ts";
import type { RunProgram } from "../process.ts";
import { hasCode, isMissing } from "../system-error.ts";

const FILE_NAME = "activation-program.json";
const LOOK_INTERVAL_MS = 50;
/** Then what is left is a zombie that nobody buries, or hangs in the kernel, where no signal reaches it. */
const LOOKS_MAX = 40;

const programSchema = z.object({
  /** Of the program, and of its process group. */
  processId: z.number().int().positive(),
  /** Tells it from another process that got the same id; null where the system does not say. */
  startedAt: z.string().nullable(),
  bootId: z.string(),
});

/** `run`, with the program on record from its start to its end. */
export function recordingRuns(run: RunProgram, options: { stateDirectory: string; bootId: string }): RunProgram {
  const path = join(options.stateDirectory, FILE_NAME);
  return async (program) => {
    const onStarted = (processId: number) => {
      const started = { processId, startedAt: readStart(processId), bootId: options.bootId };
      try {
        writeFileSync(path, JSON.stringify(started), { mode: 0o600 });
      } catch {
        // A full disk must not stop a way back. Only a killed supervisor would need the file.
      }
    };
    const exit = await run({ ...program, onStarted });
    rmSync(path, { force: true });
    return exit;
  };
}

/** Kills what an earlier supervisor left running, with its children, and waits until it is gone, for two seconds at most. */
export async function stopLeftover(options: {
  readonly stateDirectory: string;
  readonly bootId: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}): Promise<void> {
  const path = join(options.stateDirectory, FILE_NAME);
  const left = await readLeft(path);
  if (left?.bootId === options.bootId) {
    const nowStarted = readStart(left.processId);
    // Another start: the id belongs to somebody else now, which also means that nothing of the old group is left.
    if (nowStarted === null || nowStarted === left.startedAt) {
      for (let look = 0; look < LOOKS_MAX && killGroup(left.processId); look += 1) {
        await options.clock.sleep(LOOK_INTERVAL_MS, options.signal);
      }
    }
  }
  rmSync(path, { force: true });
}

async function readLeft(path: string): Promise<z.output<typeof programSchema> | null> {
  try {
    return programSchema.safeParse(JSON.parse(await readFile(path, "utf8"))).data ?? null;
  } catch (error) {
    // Torn: whoever wrote it was killed within the same moment.
    if (isMissing(error) || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Field 22 of /proc/PID/stat (proc(5)); null when it is gone, or a zombie, or there is no such file here. */
function readStart(processId: number): string | null {
  try {
    const text = readFileSync(`/proc/${processId}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[19] ?? null;
  } catch {
    return null;
  }
}

/** @returns whether there was something to kill */
function killGroup(processId: number): boolean {
  try {
    process.kill(-processId, "SIGKILL");
    return true;
  } catch (error) {
    if (hasCode(error, "ESRCH")) return false;
    throw error;
  }
}
