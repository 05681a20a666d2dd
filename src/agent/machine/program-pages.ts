/**
 * Gives back what only the start of this program needed of its own file: an agent that waits touches a part of what its
 * start did, and the rest would count as resident for months (bench/README.md).
 *
 * The pages are read-only and the kernel's own copy of a file: dropping them loses nothing, and one that is needed again
 * is mapped again, mostly without the disk. Only mappings are dropped in which nothing was ever written: what the loader
 * has relocated is in none of these. Linux alone says which those are (proc(5), madvise(2)).
 */
import { readFileSync, readlinkSync } from "node:fs";
import { fromCLibrary } from "../../c-library.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Clock } from "../../runtime.ts";

/** The first welcome and the collector's first work are over then. */
const FIRST_MS = 20_000;
/** After a deployment, too, sooner or later. */
const AGAIN_MS = 10 * 60_000;
const MADV_DONTNEED = 4;

const findLibrary = fromCLibrary("give memory back", {
  madvise: { args: ["u64", "u64", "i32"], returns: "i32" },
});

export type Mapping = { readonly start: number; readonly lengthBytes: number };

/** Again and again. Returns when the signal is aborted; never rejects. */
export async function keepProgramPagesFew(options: {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { clock, logger, signal } = options;
  if (process.platform !== "linux") return;
  try {
    for (let afterMs = FIRST_MS; ; afterMs = AGAIN_MS) {
      await clock.sleep(afterMs, signal);
      releaseProgramPages();
    }
  } catch (error) {
    // Without /proc, or where the kernel forbids it, the agent is a little larger.
    if (!signal.aborted) logger.debug(`cannot give memory back: ${describeError(error)}`);
  }
}

/** @throws the system's error */
export function releaseProgramPages(): void {
  const program = readlinkSync("/proc/self/exe");
  const { madvise } = findLibrary();
  for (const { start, lengthBytes } of findUnwritten(readFileSync("/proc/self/smaps", "utf8"), program)) {
    // What cannot be dropped (locked, say) stays.
    madvise(start, lengthBytes, MADV_DONTNEED);
  }
}

/** `START-END rwxp OFFSET DEVICE INODE PATH` */
const HEADER = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ +(.*)$/;

/**
 * The mappings of a file that can be dropped: private, not writable, without a page of this process's own. Pure.
 * @param smaps as `/proc/PID/smaps` has it
 */
export function findUnwritten(smaps: string, file: string): readonly Mapping[] {
  const found: Mapping[] = [];
  let candidate: Mapping | null = null;
  for (const line of smaps.split("\n")) {
    const [, from = "", to = "", rights = "", path] = HEADER.exec(line) ?? [];
    if (path !== undefined) {
      const start = Number.parseInt(from, 16);
      const isReadOnly = /^r-[x-]p$/.test(rights);
      candidate = isReadOnly && path === file ? { start, lengthBytes: Number.parseInt(to, 16) - start } : null;
    } else if (/^Anonymous: +0 kB$/.test(line) && candidate !== null) {
      found.push(candidate);
    }
  }
  return found;
}
