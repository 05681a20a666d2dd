/**
 * Brings the missing paths of a closure into the store: several at once, each straight from the wire through
 * decompression into the Nix daemon, so that no NAR is ever in memory or on disk twice.
 *
 * Which path is next is decided in `schedule.ts`. The first failure ends everything, and what was imported until then
 * stays: the next try skips it. (A later version spools bodies that cannot be imported yet; `importOne` is the seam.)
 */
import type { Clock, Random } from "../../../runtime.ts";
import type { DaemonConnection } from "../../daemon/connection.ts";
import { createGarbageLimit } from "../garbage.ts";
import { explainImportFailure, mustDaemonCheck } from "./daemon-trust.ts";
import type { FoundPath } from "./find-closure.ts";
import { readResumingFile } from "./resuming-file.ts";
import { createImportSchedule, type ImportSchedule } from "./schedule.ts";
import { readVerifiedNar } from "./verified-nar.ts";

export type ImportProgress = {
  /** Paths imported, of how many. */
  readonly paths: number;
  readonly pathsTotal: number;
  /** Compressed bytes received, of how many; NAR sizes stand in where the cache does not say. */
  readonly bytes: number;
  readonly bytesTotal: number;
};

export type ImportClosureOptions = {
  /** Verified (`find-closure.ts`), each after its references. */
  readonly missing: readonly FoundPath[];
  /** One path at a time on each. */
  readonly daemons: readonly DaemonConnection[];
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** At most five times a second, and once at the end. */
  readonly onProgress: (progress: ImportProgress) => void;
};

const PROGRESS_INTERVAL_MS = 200;

/**
 * @returns the compressed bytes received
 * @throws NixdeployError naming the path · the signal's reason
 */
export async function importClosure(options: ImportClosureOptions): Promise<number> {
  const progress = createProgress(options);
  const schedule = createImportSchedule(options.missing);
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  let wake = Promise.withResolvers<void>();
  const wakeAll = () => {
    wake.resolve();
    wake = Promise.withResolvers();
  };
  const work = async (daemon: DaemonConnection) => {
    for (let info = await nextPath(schedule, () => wake.promise, signal); info !== null; ) {
      await importOne({ ...options, signal, info, daemon, onBytes: progress.addBytes });
      schedule.done(info.storePath);
      progress.addPath();
      wakeAll();
      info = await nextPath(schedule, () => wake.promise, signal);
    }
  };
  const workers = options.daemons.map(async (daemon) => {
    try {
      await work(daemon);
    } catch (error) {
      failure.abort(error);
      wakeAll();
      throw error;
    }
  });
  const results = await Promise.allSettled(workers);
  options.signal.throwIfAborted();
  // The first failure is the reason of the others.
  failure.signal.throwIfAborted();
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return progress.finish();
}

/** Waits until a path may be imported; null when all are begun or done. */
async function nextPath(
  schedule: ImportSchedule<FoundPath>,
  changed: () => Promise<void>,
  signal: AbortSignal,
): Promise<FoundPath | null> {
  for (;;) {
    signal.throwIfAborted();
    if (schedule.left === 0) return null;
    const next = schedule.next();
    if (next !== null) return next;
    await changed();
  }
}

type ImportOneOptions = Omit<ImportClosureOptions, "missing" | "daemons" | "onProgress"> & {
  readonly info: FoundPath;
  readonly daemon: DaemonConnection;
  readonly onBytes: (count: number) => void;
};

async function importOne(options: ImportOneOptions): Promise<void> {
  const { info, daemon } = options;
  const { reader, trustedKeys } = info.source;
  const nar = readVerifiedNar(info, readResumingFile({ ...options, cache: reader }));
  try {
    await daemon.addToStoreNar({ info, nar, checkSignatures: mustDaemonCheck(daemon.trust) });
  } catch (error) {
    throw explainImportFailure(error, { info, trustedKeys });
  }
}

function createProgress(options: Pick<ImportClosureOptions, "missing" | "clock" | "onProgress">) {
  const pathsTotal = options.missing.length;
  const bytesTotal = options.missing.reduce((sum, info) => sum + (info.fileSizeBytes ?? info.narSizeBytes), 0);
  let paths = 0;
  let bytes = 0;
  let reportedAtMs = Number.NEGATIVE_INFINITY;
  const limitGarbage = createGarbageLimit();
  const report = () => {
    reportedAtMs = options.clock.monotonicMs();
    options.onProgress({ paths, pathsTotal, bytes, bytesTotal });
  };
  const reportIfDue = () => {
    if (options.clock.monotonicMs() - reportedAtMs >= PROGRESS_INTERVAL_MS) report();
  };
  return {
    addBytes(count: number) {
      bytes += count;
      limitGarbage(count);
      reportIfDue();
    },
    addPath() {
      paths += 1;
      reportIfDue();
    },
    /** @returns the bytes received */
    finish(): number {
      report();
      return bytes;
    },
  };
}
