/**
 * A journal that is in no file: of a deployment that ended before anything was touched, because the disk takes no journal.
 * So the coordinator hears of it all the same. Should the agent end before that, nothing is known of the deployment here,
 * and the coordinator offers it again.
 */
import { type ReportEntry, reportEntrySchema } from "../../protocol.ts";
import type { Cursor, JournalFile } from "./journal-file.ts";

/** For the few entries of such an end. */
export function createMemoryFile(): JournalFile {
  const entries: ReportEntry[] = [];
  const placeBehind = (n: number): Cursor => ({ n, offset: n });
  return {
    get end() {
      return placeBehind(entries.length);
    },
    async append(lines) {
      const whole = lines.split("\n").filter((line) => line !== "");
      entries.push(...whole.map((line) => reportEntrySchema.parse(JSON.parse(line))));
    },
    async read(from, { entriesMax }) {
      const found = entries.slice(from.n, from.n + entriesMax);
      return { entries: found, next: placeBehind(from.n + found.length) };
    },
    catchUp: async () => false,
    find: async (n) => placeBehind(Math.min(n, entries.length)),
    [Symbol.asyncDispose]: async () => {},
  };
}
