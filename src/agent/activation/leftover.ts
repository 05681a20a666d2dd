/**
 * The programs that a supervisor runs for an activation, on record while they run (`STATE_DIR/activation-program.json`), so
 * that the next supervisor, after this one was killed, stops them before it begins the stage anew: two scripts would
 * work against each other, and one that hangs would keep the machine's lock for ever. Where systemd runs supervisors,
 * it has stopped the programs with them.
 *
 * Need not survive a power cut, which stops every program, so nothing is synced.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../runtime.ts";
import type { RunProgram } from "../machine/process.ts";
import { hasCode, isMissing } from "../machine/system-error.ts";

const FILE_NAME = "activation-program.json";
const MARK_VARIABLE = "NIXDEPLOY_PROGRAM";
const LOOK_INTERVAL_MS = 50;
/** Then what is left is a zombie that nobody buries, or hangs in the kernel, where no signal reaches it. */
const LOOKS_MAX = 40;

const programShape = {
  /** Value of a variable in the program's environment: finds it when we were killed before its id was written. */
  mark: z.string(),
  process: z
    .object({
      /** Of the program, and of its process group. */
      id: z.number().int().positive(),
      /** Tells it from another process that got the same id; null where the system does not say. */
      startedAt: z.string().nullable(),
    })
    .nullable(),
};
const programSchema = z.object(programShape);
/** The first one stands at the top, where versions that ran one at a time look for it. */
const leftSchema = z.object({ ...programShape, bootId: z.string(), others: z.array(programSchema).optional() });
type Program = z.output<typeof programSchema>;
type Left = z.output<typeof leftSchema>;

/** `run`, with the program on record from before its start to its end. Several may run at the same time. */
export function recordingRuns(run: RunProgram, options: { stateDirectory: string; bootId: string }): RunProgram {
  const path = join(options.stateDirectory, FILE_NAME);
  const running = new Map<string, Program>();
  const write = () => {
    const [first, ...others] = running.values();
    if (first === undefined) return forgetPrograms(path);
    const left: Left = { bootId: options.bootId, ...first, ...(others.length === 0 ? {} : { others }) };
    try {
      writeFileSync(path, JSON.stringify(left), { mode: 0o600 });
    } catch {
      // A full disk must not stop a way back. Only a killed supervisor would need the file.
    }
  };
  let count = 0;
  return async (program) => {
    count += 1;
    const mark = `${process.pid}-${readStart(process.pid)}-${count}`;
    running.set(mark, { mark, process: null });
    write();
    const exit = await run({
      ...program,
      environment: { ...program.environment, [MARK_VARIABLE]: mark },
      onStarted: (id) => {
        running.set(mark, { mark, process: { id, startedAt: readStart(id) } });
        write();
      },
    });
    running.delete(mark);
    write();
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
  const programs = left === null || left.bootId !== options.bootId ? [] : [left, ...(left.others ?? [])];
  let groups = programs.map(findGroup).filter((group) => group !== null);
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    groups = groups.filter(killGroup);
    if (groups.length === 0) break;
    await options.clock.sleep(LOOK_INTERVAL_MS, options.signal);
  }
  forgetPrograms(path);
}

/** What cannot be removed names programs that are gone, which whoever reads it notices. */
function forgetPrograms(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // A disk that takes nothing must not stop a way back.
  }
}

async function readLeft(path: string): Promise<Left | null> {
  try {
    return leftSchema.safeParse(JSON.parse(await readFile(path, "utf8"))).data ?? null;
  } catch (error) {
    // Torn: whoever wrote it was killed within the same moment.
    if (isMissing(error) || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** The process group to kill; null when there is nothing, or the id is somebody else's by now. */
function findGroup({ process: known, mark }: Program): number | null {
  if (known === null) return findMarked(mark);
  const nowStarted = readStart(known.id);
  return nowStarted === null || nowStarted === known.startedAt ? known.id : null;
}

/** The first process that has the mark: what has it besides was started by that one. Null where there is no /proc. */
function findMarked(mark: string): number | null {
  const found: { id: number; startedAt: number }[] = [];
  for (const name of listProcesses()) {
    const id = Number(name);
    const startedAt = readStart(id);
    if (startedAt !== null && hasMark(id, mark)) found.push({ id, startedAt: Number(startedAt) });
  }
  return found.sort((a, b) => a.startedAt - b.startedAt || a.id - b.id)[0]?.id ?? null;
}

function listProcesses(): string[] {
  try {
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}

function hasMark(id: number, mark: string): boolean {
  try {
    return readFileSync(`/proc/${id}/environ`, "utf8").split("\0").includes(`${MARK_VARIABLE}=${mark}`);
  } catch {
    return false; // It has ended, or is not ours to look at.
  }
}

/** Field 22 of /proc/PID/stat (proc(5)); null when it is gone, or there is no such file here. */
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
    // Gone; or run as somebody else, by a program that may do that: then it is not ours to stop.
    if (hasCode(error, "ESRCH") || hasCode(error, "EPERM")) return false;
    throw error;
  }
}
