/** What the kernel says about a process while it runs. Linux only. */
import { readFileSync } from "node:fs";

/** In bytes. */
export type Memory = {
  /** Resident, pages of the executable included, which processes of one binary share. */
  readonly totalBytes: number;
  /** Resident and this process's own: heap, buffers, stacks. */
  readonly anonymousBytes: number;
};

const KIB = 1024;
const POLL_INTERVAL_MS = 10;

/** What is resident now, by `/proc/PID/smaps_rollup`. */
export function readMemory(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return { totalBytes: parseField(text, "Rss"), anonymousBytes: parseField(text, "Anonymous") };
}

export type PeakWatch = Disposable & {
  /** The highest values so far. The process may have ended. */
  peak(): Memory;
};

/**
 * Follows a process to its end. The total is the kernel's own high-water mark (VmHWM), of which the last reading before
 * the end counts; the anonymous part has no such mark, so a peak between two looks (10 ms) is missed.
 */
export function watchPeak(pid: number): PeakWatch {
  let peak: Memory = { totalBytes: 0, anonymousBytes: 0 };
  const look = () => {
    try {
      const text = readFileSync(`/proc/${pid}/status`, "utf8");
      peak = {
        totalBytes: Math.max(peak.totalBytes, parseField(text, "VmHWM")),
        anonymousBytes: Math.max(peak.anonymousBytes, parseField(text, "RssAnon")),
      };
    } catch {
      // It has ended: what was seen until now is the result.
    }
  };
  const timer = setInterval(look, POLL_INTERVAL_MS);
  return {
    peak: () => {
      look();
      return peak;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

/** @throws Error when the file has no such line, which is so for a process that is a zombie */
function parseField(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text);
  if (match?.[1] === undefined) throw new Error(`the kernel does not say ${name}`);
  return Number(match[1]) * KIB;
}

/** @throws Error when there are none */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  if (low === undefined || high === undefined) throw new Error("there is no median of nothing");
  return (low + high) / 2;
}
