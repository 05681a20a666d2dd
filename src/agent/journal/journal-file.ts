/**
 * The bytes of a journal: one JSON entry a line, appended, numbered from 1 without gaps. Knows what is durable and how
 * to read on from a place in the file; what goes into a journal is decided in `journal.ts`.
 *
 * A crash can leave a torn last line, or lines that were never synced: reading stops at the first line that is not the
 * next entry, and the file is cut there. Entries leave the machine only once they are durable, so a number is never
 * used twice for different entries.
 */
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { type ReportEntry, reportEntrySchema } from "../../protocol.ts";
import { syncDirectory } from "../machine/durable-file.ts";
import { isMissing, takesNothing } from "../machine/system-error.ts";

/** A place in the file: behind entry `n`, at byte `offset`. */
export type Cursor = { readonly n: number; readonly offset: number };

export type JournalFile = AsyncDisposable & {
  /** Behind the last durable entry. */
  readonly end: Cursor;
  /** Writes whole lines behind the end and syncs them. After an error nothing counts as written. */
  append(lines: string, entryCount: number): Promise<void>;
  /** The entries behind a place, up to the limits but at least one; none at the end. */
  read(from: Cursor, limits: ReadLimits): Promise<{ readonly entries: readonly ReportEntry[]; readonly next: Cursor }>;
  /**
   * Takes in what another process has appended: makes it durable, moves the end behind it, and gives every new entry to
   * `onEntry`. A line that is not whole yet stays for the next time.
   * @returns whether there was something
   */
  catchUp(onEntry: (entry: ReportEntry) => void): Promise<boolean>;
  /** The place behind entry `n` (at most the end), looked for from `from` on. */
  find(n: number, from: Cursor): Promise<Cursor>;
};

export type ReadLimits = { readonly entriesMax: number; readonly bytesMax: number };

export const START: Cursor = { n: 0, offset: 0 };
const CHUNK_BYTES = 256 * 1024;
/** Longer than any line that `journal.ts` writes (16 Ki characters, escaped). */
const LINE_BYTES_MAX = 1024 * 1024;
const NEWLINE = 0x0a;

export type OpenJournalFileOptions = {
  readonly path: string;
  /** Given every entry that is there, in order. */
  readonly onEntry: (entry: ReportEntry) => void;
  /** Another process may be writing: nothing is cut off, and nothing may be appended here. */
  readonly isFollowed: boolean;
};

/**
 * Opens or makes the file. One that is there can be opened while the disk takes nothing, too: what it holds can be read
 * and sent, and an append fails until the disk takes something again.
 */
export async function openJournalFile({ path, onEntry, isFollowed }: OpenJournalFileOptions): Promise<JournalFile> {
  const writable = await openWritable(path);
  const handle = writable ?? (await open(path, "r"));
  try {
    const { size } = await handle.stat();
    const end = await readEntries(handle, { from: START, untilOffset: size, onEntry });
    if (!isFollowed && end.offset < size) await unlessDiskRefuses(handle.truncate(end.offset));
    // Whoever wrote it may have been killed before it was synced.
    await unlessDiskRefuses(handle.datasync());
    return createJournalFile({ path, handle, isWritable: writable !== null, recovered: end });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** @returns null when the disk takes nothing, and the file may be there */
async function openWritable(path: string): Promise<FileHandle | null> {
  try {
    const file = await open(path, "a+", 0o600);
    await file.close();
    await syncDirectory(dirname(path));
    return await open(path, "r+");
  } catch (error) {
    if (takesNothing(error)) return null;
    throw error;
  }
}

/** What is there is all there is, surely durable or not: better a broken disk's journal than none. */
async function unlessDiskRefuses(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!takesNothing(error)) throw error;
  }
}

type OpenedFile = {
  readonly path: string;
  readonly handle: FileHandle;
  readonly isWritable: boolean;
  readonly recovered: Cursor;
};

function createJournalFile(opened: OpenedFile): JournalFile {
  let { handle, isWritable } = opened;
  let end = opened.recovered;
  /** @throws the system's error while the disk takes nothing */
  const makeWritable = async () => {
    const before = handle;
    handle = await open(opened.path, "r+");
    isWritable = true;
    await before.close();
    await handle.truncate(end.offset);
  };
  return {
    get end() {
      return end;
    },
    async append(lines, entryCount) {
      const bytes = Buffer.from(lines);
      if (!isWritable) await makeWritable();
      await writeAll(handle, bytes, end.offset);
      await handle.datasync();
      end = { n: end.n + entryCount, offset: end.offset + bytes.length };
    },
    async read(from, limits) {
      const entries: ReportEntry[] = [];
      let next = from;
      for await (const line of readLines(handle, from.offset, end.offset)) {
        const isFull = entries.length >= limits.entriesMax || line.end - from.offset > limits.bytesMax;
        if (isFull && entries.length > 0) break;
        entries.push(reportEntrySchema.parse(JSON.parse(line.text)));
        next = { n: next.n + 1, offset: line.end };
      }
      return { entries, next };
    },
    async catchUp(onEntry) {
      const { size } = await handle.stat();
      if (size <= end.offset) return false;
      // Whoever wrote it may not have synced it yet, and what leaves the machine must be durable.
      await handle.datasync();
      const before = end;
      end = await readEntries(handle, { from: end, untilOffset: size, onEntry });
      return end.n > before.n;
    },
    async find(n, from) {
      let place = from;
      if (n >= end.n) return end;
      for await (const line of readLines(handle, from.offset, end.offset)) {
        if (place.n >= n) break;
        place = { n: place.n + 1, offset: line.end };
      }
      return place;
    },
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

type ReadEntriesOptions = Pick<OpenJournalFileOptions, "onEntry"> & {
  readonly from: Cursor;
  /** What is behind it may be written at this moment, and not be durable. */
  readonly untilOffset: number;
};

/** Gives every whole entry between two places to `onEntry`. @returns the place behind the last one */
async function readEntries(handle: FileHandle, { from, untilOffset, onEntry }: ReadEntriesOptions): Promise<Cursor> {
  let end = from;
  for await (const line of readLines(handle, from.offset, untilOffset)) {
    const entry = parseEntry(line.text);
    if (entry === null || entry.n !== end.n + 1) break;
    end = { n: entry.n, offset: line.end };
    onEntry(entry);
  }
  return end;
}

function parseEntry(text: string): ReportEntry | null {
  try {
    return reportEntrySchema.parse(JSON.parse(text));
  } catch {
    // A torn or unsynced line: the journal ends before it.
    return null;
  }
}

type Line = { readonly text: string /** Offset behind the newline. */; readonly end: number };

/** Whole lines between two offsets; ends before a line that has no newline or is too long to be ours. */
async function* readLines(handle: FileHandle, start: number, end: number): AsyncGenerator<Line> {
  let rest = Buffer.alloc(0);
  let restOffset = start;
  for (let offset = start; offset < end; ) {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, end - offset));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, offset);
    if (bytesRead === 0) return;
    offset += bytesRead;
    rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    let lineStart = 0;
    for (let at = rest.indexOf(NEWLINE); at !== -1; at = rest.indexOf(NEWLINE, lineStart)) {
      yield { text: rest.toString("utf8", lineStart, at), end: restOffset + at + 1 };
      lineStart = at + 1;
    }
    rest = rest.subarray(lineStart);
    restOffset += lineStart;
    if (rest.length > LINE_BYTES_MAX) return;
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let written = 0; written < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, written, bytes.length - written, offset + written);
    if (bytesWritten === 0) throw new Error("the file takes no more bytes");
    written += bytesWritten;
  }
}

/** More than the line of an outcome takes. */
const LAST_LINE_BYTES_MAX = 64 * 1024;

/** The last whole entry of a journal that is not too long to be an outcome; null when there is none. Changes nothing. */
export async function readLastEntry(path: string): Promise<ReportEntry | null> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  try {
    const { size } = await handle.stat();
    let last: ReportEntry | null = null;
    const start = Math.max(0, size - LAST_LINE_BYTES_MAX);
    for await (const line of readLines(handle, start, size)) last = parseEntry(line.text);
    return last;
  } finally {
    await handle.close();
  }
}
