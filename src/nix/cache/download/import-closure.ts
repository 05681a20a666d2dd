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
import { runSchedule } from "./run-schedule.ts";
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
  await runSchedule({
    ...options,
    workers: options.daemons,
    importPath: async (info, daemon, signal) => {
      await importOne({ ...options, signal, info, daemon, onBytes: progress.addBytes });
      progress.addPath();
    },
  });
  return progress.finish();
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
