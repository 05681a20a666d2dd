/**
 * The journal of one deployment: everything the coordinator must learn about it, on the agent's disk until it has.
 *
 * Phases and the outcome are durable before anything is done because of them. Log lines are gathered and synced a few
 * times a second; a program that prints faster than the disk takes it has to wait, and what it prints beyond
 * {@link LOG_BYTES_MAX} is not kept, which the journal says. Trouble with the disk never stops an activation: log lines
 * are lost then, while a phase or an outcome that cannot be written is an error for the caller.
 */
import type { Phase } from "../../deployment.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { LOG_LINE_CHARACTERS_MAX, REPORT_ENTRIES_MAX, type ReportEntry } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { ChangeSignal } from "./change-signal.ts";
import { type Cursor, type JournalFile, START } from "./journal-file.ts";
import type { StoredOffer } from "./stored-offer.ts";

/** Of log lines in one journal, as they stand in the file. */
export const LOG_BYTES_MAX = 64 * 1024 * 1024;

const FLUSH_INTERVAL_MS = 100;
const FOLLOW_INTERVAL_MS = 100;
const BUFFER_BYTES_MAX = 512 * 1024;
/** After a failed write, before log lines ask for another. */
const RETRY_INTERVAL_MS = 1_000;
const REPORT_BYTES_MAX = 1024 * 1024;

export type PhaseEntry = Extract<ReportEntry, { type: "phase" }>;
export type OutcomeEntry = Extract<ReportEntry, { type: "outcome" }>;
export type LogEntry = Extract<ReportEntry, { type: "log" }>;
export type LogStream = LogEntry["stream"];

type Unnumbered<Entry> = Entry extends ReportEntry ? Omit<Entry, "n" | "atMs"> : never;

export type Journal = {
  readonly offer: StoredOffer;
  /** Durable ones, in order. */
  readonly phases: readonly PhaseEntry[];
  readonly outcome: OutcomeEntry | null;
  readonly durable: Cursor;
  readonly acknowledged: Cursor;
  /** Adds a line; waits only while the disk is behind. Never throws. */
  log(stream: LogStream, text: string): Promise<void>;
  /** Durable on return. @throws NixdeployError("host") when it cannot be written */
  phase(entry: Pick<PhaseEntry, "phase" | "previousPath" | "confirmWindowMs">): Promise<void>;
  /**
   * Durable on return; nothing may be added afterwards.
   * @throws NixdeployError("host") when it cannot be written; then call it again with the same entry, later
   */
  finish(entry: Omit<OutcomeEntry, "type" | "n" | "atMs">): Promise<void>;
  /** Durable entries behind a place, as many as fit into one report. */
  read(from: Cursor): Promise<{ readonly entries: readonly ReportEntry[]; readonly next: Cursor }>;
  /** The coordinator has everything up to and including entry `through`, and nothing more. */
  acknowledge(through: number): Promise<void>;
  /**
   * Leaves the writing to another process (the supervisor of the activation): writes what is gathered; from now on only
   * `follow`, `read` and `acknowledge` may be used. @throws NixdeployError("host") when the rest cannot be written
   */
  handOver(): Promise<void>;
  /** Takes in what another process has written. */
  refresh(): Promise<void>;
  /** Takes in what the other process writes, until the outcome is there. @throws the signal's reason */
  follow(signal: AbortSignal): Promise<OutcomeEntry>;
  /** Writes what is gathered. */
  close(): Promise<void>;
};

export type JournalOptions = {
  readonly offer: StoredOffer;
  readonly file: JournalFile;
  /** What the file held when it was opened. */
  readonly recovered: readonly (PhaseEntry | OutcomeEntry)[];
  readonly acknowledged: Cursor;
  readonly clock: Clock;
  /** Told of every durable entry and every acknowledgement. */
  readonly changes: ChangeSignal;
  readonly logBytesMax?: number;
};

export function createJournal(options: JournalOptions): Journal {
  const { file, clock, changes, logBytesMax = LOG_BYTES_MAX } = options;
  const writer = createWriter(file, clock, changes);
  const phases = options.recovered.filter((entry) => entry.type === "phase");
  let outcome = options.recovered.find((entry) => entry.type === "outcome") ?? null;
  let acknowledged = options.acknowledged;
  let logBytes = file.end.offset;
  let linesLost = 0;
  /** An outcome that the disk has not taken yet. */
  let unwritten: OutcomeEntry | null = null;

  const log = async (stream: LogStream, text: string) => {
    if (logBytes > logBytesMax) {
      if (linesLost === 0) writer.addLast(describeLimit(logBytesMax));
      linesLost += 1;
      return;
    }
    const size = writer.add({ type: "log", stream, text: cutLine(text) });
    if (size === null) {
      linesLost += 1;
      return;
    }
    logBytes += size;
    await writer.whenRoom();
  };

  const take = (entry: ReportEntry) => {
    if (entry.type === "phase") phases.push(entry);
    if (entry.type === "outcome") outcome = entry;
  };
  const refresh = async () => {
    if (await file.catchUp(take)) changes.changed();
  };

  return {
    offer: options.offer,
    phases,
    get outcome() {
      return outcome;
    },
    get durable() {
      return file.end;
    },
    get acknowledged() {
      return acknowledged;
    },
    log,
    async phase(entry) {
      const numbered = writer.number({ type: "phase", ...entry });
      await writer.flushOrFail();
      phases.push(numbered);
    },
    async finish(entry) {
      if (outcome !== null) throw new Error("cannot finish a journal twice");
      if (unwritten === null) {
        if (linesLost > 0) writer.addLast(`${linesLost} lines of output were not kept`);
        unwritten = writer.number({ type: "outcome", ...entry });
      }
      await writer.flushOrFail();
      outcome = unwritten;
      changes.changed();
    },
    read: (from) => file.read(from, { entriesMax: REPORT_ENTRIES_MAX, bytesMax: REPORT_BYTES_MAX }),
    async acknowledge(through) {
      if (through === acknowledged.n) return;
      // Less than before: a coordinator that was restored from a backup, and needs the rest again.
      acknowledged = await file.find(through, through < acknowledged.n ? START : acknowledged);
      changes.changed();
    },
    handOver: () => writer.flushOrFail(),
    refresh,
    async follow(signal) {
      for (;;) {
        await refresh();
        if (outcome !== null) return outcome;
        await clock.sleep(FOLLOW_INTERVAL_MS, signal);
      }
    },
    close: () => writer.close(),
  };
}

/** From the journal's own times, so that a restart in between counts too. */
export function measurePhases(journal: Journal, endMs: number): Partial<Record<Phase, number>> {
  const phaseMs: Partial<Record<Phase, number>> = {};
  for (const [index, { phase, atMs }] of journal.phases.entries()) {
    const untilMs = journal.phases[index + 1]?.atMs ?? endMs;
    // The wall clock may have been set back.
    phaseMs[phase] = (phaseMs[phase] ?? 0) + Math.max(0, untilMs - atMs);
  }
  return phaseMs;
}

/** A line that fits into a report, cut with a mark where it is longer. */
function cutLine(text: string): string {
  const more = text.length - LOG_LINE_CHARACTERS_MAX;
  return more <= 0 ? text : `${text.slice(0, LOG_LINE_CHARACTERS_MAX)} […${more} more characters cut off]`;
}

function describeLimit(bytes: number): string {
  return `output beyond ${Math.floor(bytes / 1024 / 1024)} MiB is not kept; the program goes on`;
}

/** Numbers entries, gathers their lines, and brings them to the disk in order, one write at a time. */
function createWriter(file: JournalFile, clock: Clock, changes: ChangeSignal) {
  let lastNumber = file.end.n;
  let gathered: string[] = [];
  let gatheredBytes = 0;
  let writing: Promise<void> | null = null;
  let timer: Promise<void> | null = null;
  let failedAtMs: number | null = null;
  const closing = new AbortController();

  const writeGathered = async () => {
    const lines = gathered.join("");
    const count = gathered.length;
    if (count === 0) return;
    try {
      await file.append(lines, count);
      failedAtMs = null;
    } catch (error) {
      failedAtMs = clock.monotonicMs();
      throw error;
    }
    // What came meanwhile stays.
    gathered = gathered.slice(count);
    gatheredBytes -= Buffer.byteLength(lines);
    changes.changed();
  };
  const flush = async () => {
    // Whoever began before us may have begun before our entry was gathered.
    await writing?.catch(() => {
      // Whoever began that write learns of its failure; we try again.
    });
    writing ??= writeGathered().finally(() => {
      writing = null;
    });
    await writing;
  };
  const flushLater = () => {
    timer ??= flushUntilEmpty();
  };
  /** What comes while a write is under way finds this at work, and so starts nobody else. */
  const flushUntilEmpty = async () => {
    try {
      do {
        await clock.sleep(FLUSH_INTERVAL_MS, closing.signal);
        await flush();
      } while (gathered.length > 0);
    } catch {
      // Closing, which flushes itself; or the disk refuses, which the next phase or outcome reports.
    } finally {
      timer = null;
    }
  };
  const gather = <Entry extends Unnumbered<ReportEntry>>(entry: Entry) => {
    const numbered = { n: lastNumber + 1, atMs: clock.nowMs(), ...entry };
    const line = `${JSON.stringify(numbered)}\n`;
    const bytes = Buffer.byteLength(line);
    lastNumber += 1;
    gathered.push(line);
    gatheredBytes += bytes;
    return { numbered, bytes };
  };
  return {
    /** Gathers an entry; `flushOrFail` makes it durable. */
    number: <Entry extends Unnumbered<PhaseEntry | OutcomeEntry>>(entry: Entry) => gather(entry).numbered,
    /** @returns the bytes it takes, or null when it was dropped because the disk takes nothing */
    add(entry: Unnumbered<LogEntry>): number | null {
      if (gatheredBytes > 2 * BUFFER_BYTES_MAX) return null;
      flushLater();
      return gather(entry).bytes;
    },
    /** A line of ours that is never dropped. */
    addLast(text: string): void {
      gather({ type: "log", stream: "agent", text });
      flushLater();
    },
    async flushOrFail(): Promise<void> {
      try {
        await flush();
      } catch (cause) {
        throw new NixdeployError("host", `cannot write the deployment's journal: ${describeError(cause)}`, { cause });
      }
    },
    async whenRoom(): Promise<void> {
      const isTooEarly = failedAtMs !== null && clock.monotonicMs() - failedAtMs < RETRY_INTERVAL_MS;
      if (gatheredBytes <= BUFFER_BYTES_MAX || isTooEarly) return;
      await flush().catch(() => {
        // The disk refuses: lines beyond the buffer are dropped and counted.
      });
    },
    async close(): Promise<void> {
      closing.abort(new Error("the journal is closed"));
      await timer;
      await flush().catch(() => {
        // Nobody is left to tell; phases and outcomes were written before.
      });
    },
  };
}
