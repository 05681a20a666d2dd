/**
 * Carries out a schedule of imports (`schedule.ts`) with several workers, each at one path at a time. The first failure
 * ends everything; what was imported until then stays. What a worker is, and how it imports, is the caller's business.
 */
import { createImportSchedule, type ImportSchedule, type ScheduledPath } from "./schedule.ts";

export type RunScheduleOptions<Path extends ScheduledPath, Worker> = {
  /** Each after its references; references to others count as valid. */
  readonly missing: readonly Path[];
  readonly workers: readonly Worker[];
  readonly importPath: (path: Path, worker: Worker, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
};

/** @throws the first failure, when all workers have stopped · the signal's reason */
export async function runSchedule<Path extends ScheduledPath, Worker>(
  options: RunScheduleOptions<Path, Worker>,
): Promise<void> {
  const schedule = createImportSchedule(options.missing);
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  let wake = Promise.withResolvers<void>();
  const wakeAll = () => {
    wake.resolve();
    wake = Promise.withResolvers();
  };
  const work = async (worker: Worker) => {
    for (let path = await nextPath(schedule, () => wake.promise, signal); path !== null; ) {
      await options.importPath(path, worker, signal);
      schedule.done(path.storePath);
      wakeAll();
      path = await nextPath(schedule, () => wake.promise, signal);
    }
  };
  const workers = options.workers.map(async (worker) => {
    try {
      await work(worker);
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
}

/** Waits until a path may be imported; null when all are begun or done. */
async function nextPath<Path extends ScheduledPath>(
  schedule: ImportSchedule<Path>,
  changed: () => Promise<void>,
  signal: AbortSignal,
): Promise<Path | null> {
  for (;;) {
    signal.throwIfAborted();
    if (schedule.left === 0) return null;
    const next = schedule.next();
    if (next !== null) return next;
    await changed();
  }
}
