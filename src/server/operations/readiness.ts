/**
 * Whether the coordinator can do its work now: the disk takes a write, the database takes a write, there is room.
 *
 * The disk is asked first, by a small file of its own and off the main thread: a statement of SQLite on a disk that does
 * not answer would hold up everything, and nobody could say why. So the database is only asked when the disk has just
 * answered.
 */
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describeError } from "../../errors.ts";
import type { Clock } from "../../runtime.ts";
import { readRoom, type StoragePlaces } from "./storage.ts";

export type Readiness = {
  /** Looks, unless it has just looked; whoever asks meanwhile gets the same answer. */
  check(): Promise<ReadinessReport>;
  /** Of the last look. */
  readonly latest: ReadinessReport | null;
  /** From now on it is not ready, because it stops. */
  stop(): void;
};

export type ReadinessReport = {
  /** None: it is ready. A sentence each, without paths. */
  readonly reasons: readonly string[];
};

export type ReadinessDeps = {
  readonly clock: Clock;
  /** One small transaction. */
  readonly writeDatabase: () => Promise<void>;
  /** Null: everything is in memory. */
  readonly storage: StoragePlaces | null;
  /** In place of a real file, in tests. */
  readonly probeFolder?: (folder: string) => Promise<void>;
};

/** A write that has not returned by then is called stuck. */
export const WRITE_MAX_MS = 5_000;
/** With less room than this a coordinator counts as full: the database's log alone may need it. */
export const ROOM_MIN_BYTES = 64 * 1024 * 1024;
export const PROBE_FILE = "readiness-probe";
/** Not asked more often, so that nobody can wear the disk out by asking. */
const FRESH_MS = 1_000;
const MIB = 1024 * 1024;
const OWNER_ONLY = 0o600;

export function createReadiness(deps: ReadinessDeps): Readiness {
  const { clock, storage } = deps;
  const probe = createDeadlined(clock, deps.probeFolder ?? probeFolder);
  const writeDatabase = createDeadlined(clock, deps.writeDatabase);
  let stopping = false;
  let latest: { readonly report: ReadinessReport; readonly atMs: number } | null = null;
  let looking: Promise<ReadinessReport> | null = null;

  const look = async (): Promise<ReadinessReport> => {
    const places = storage === null ? [] : describePlaces(storage);
    const ofDisks = await Promise.all(
      places.map(async ({ folder, what }) => {
        const trouble = await probe(folder);
        // A disk that does not answer would not answer this either.
        return trouble === null ? await describeRoom(folder, what) : [`${what} ${trouble}`];
      }),
    );
    const reasons = ofDisks.flat();
    const trouble = reasons.length === 0 ? await writeDatabase("database") : null;
    return { reasons: trouble === null ? reasons : [...reasons, `the database ${trouble}`] };
  };
  return {
    get latest() {
      return latest?.report ?? null;
    },
    stop() {
      stopping = true;
    },
    async check() {
      if (stopping) return { reasons: ["the coordinator stops"] };
      if (latest !== null && clock.monotonicMs() - latest.atMs < FRESH_MS) return latest.report;
      looking ??= look().finally(() => {
        looking = null;
      });
      const report = await looking;
      latest = { report, atMs: clock.monotonicMs() };
      return report;
    },
  };
}

function describePlaces(storage: StoragePlaces) {
  return [
    { folder: dirname(storage.databaseFile), what: "the disk of the database" },
    { folder: storage.narsDirectory, what: "the disk of the NAR files" },
  ];
}

async function describeRoom(folder: string, what: string): Promise<readonly string[]> {
  const room = await readRoom(folder);
  if (room === null || room.freeBytes >= ROOM_MIN_BYTES) return [];
  return [`${what} is full: ${Math.floor(room.freeBytes / MIB)} MiB are left`];
}

/**
 * One try at a time for each key. A try that hangs is not begun again: whoever asks meanwhile is told so at once.
 * @returns null when it went well, else what to say behind "the disk"
 */
function createDeadlined(clock: Clock, work: (key: string) => Promise<void>) {
  const hanging = new Map<string, number>();
  return async (key: string): Promise<string | null> => {
    const since = hanging.get(key);
    if (since !== undefined) return notAnswered(clock.monotonicMs() - since);
    const startedMs = clock.monotonicMs();
    hanging.set(key, startedMs);
    const done = new AbortController();
    const trying = work(key)
      .then(
        () => null,
        (error: unknown) => `takes no write: ${describeError(error)}`,
      )
      .finally(() => hanging.delete(key));
    // A sleep ends early only by being stopped.
    const late = clock.sleep(WRITE_MAX_MS, done.signal).then(
      () => notAnswered(WRITE_MAX_MS),
      () => null,
    );
    const result = await Promise.race([trying, late]);
    done.abort();
    const tookMs = clock.monotonicMs() - startedMs;
    // What blocks this thread blocks the deadline too, and is seen afterwards.
    return result ?? (tookMs > WRITE_MAX_MS ? `took ${Math.round(tookMs / 1_000)} s for a small write` : null);
  };
}

function notAnswered(afterMs: number): string {
  return `does not answer: a small write has taken ${Math.max(1, Math.round(afterMs / 1_000))} s so far`;
}

async function probeFolder(folder: string): Promise<void> {
  await using file = await open(join(folder, PROBE_FILE), "w", OWNER_ONLY);
  await file.write("Written now and then, to see whether this disk takes it.\n");
  await file.sync();
}
