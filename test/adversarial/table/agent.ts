/** The parsers of the agent: what programs print, and the files of its state directory. */
import { chmod } from "node:fs/promises";
import { openDeploymentStore } from "../../../src/agent/deployment-store.ts";
import { readEnrolment } from "../../../src/agent/enrolment.ts";
import { loadIdentity } from "../../../src/agent/identity.ts";
import { openJournalFile } from "../../../src/agent/journal-file.ts";
import { createLineSplitter } from "../../../src/agent/line-splitter.ts";
import { NixdeployError } from "../../../src/errors.ts";
import type { ReportEntry } from "../../../src/protocol.ts";
import { systemClock, systemRandom } from "../../../src/runtime.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { defineParser, type Parser } from "../parser.ts";
import { JSON_WORDS } from "./contracts.ts";

const LINE_LENGTH_MAX = 40;
const { storePath } = createTinyPath("tiny");
const entries = numberEntries([
  logEntry("one"),
  phaseEntry("activating"),
  logEntry("zwei ü 🚀"),
  outcomeEntry("failed"),
]);
const ndjson = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join("");

/** Files cost far more than their parsers. */
const FILE_COST_FACTOR = 40;

/** A state directory whose file `name` holds `bytes`. */
async function withFile<Value>(
  name: string,
  bytes: Uint8Array,
  read: (directory: string) => Promise<Value>,
): Promise<Value> {
  await using directory = await createTemporaryDirectory("corpus");
  await Bun.write(directory.join(name), bytes);
  await chmod(directory.join(name), 0o600);
  return await read(directory.path);
}

/** What the file says, and says again after it was cut to it. */
async function readJournal(path: string): Promise<readonly ReportEntry[]> {
  const recovered: ReportEntry[] = [];
  await using file = await openJournalFile({
    path,
    onEntry: (entry) => recovered.push(entry),
    isFollowed: false,
  });
  const { entries: read } = await file.read({ n: 0, offset: 0 }, { entriesMax: 1e6, bytesMax: 1e9 });
  if (!Bun.deepEquals(read, recovered)) throw new Error("reads other entries than it recovered");
  return recovered;
}

export const agentParsers: readonly Parser[] = [
  defineParser({
    name: "line-splitter",
    costFactor: 3,
    samples: ["one\ntwo\r\n\nthree", `${"x".repeat(LINE_LENGTH_MAX)}\r\n${"ü".repeat(3 * LINE_LENGTH_MAX)}`],
    errors: [],
    dictionary: ["\n", "\r", "\r\n", "x".repeat(LINE_LENGTH_MAX), "\ufeff"],
    parseChunks: (chunks) => {
      const splitter = createLineSplitter(LINE_LENGTH_MAX);
      const lines = [...chunks.flatMap((chunk) => splitter.push(chunk)), ...splitter.end()];
      if (lines.some((line) => line.length > LINE_LENGTH_MAX)) throw new Error("a line is too long");
      return lines;
    },
  }),
  defineParser({
    name: "journal",
    samples: [ndjson(entries), ""],
    errors: [],
    dictionary: [...JSON_WORDS, "\n", '"n":1', '"n":2', "\r\n"],
    costFactor: FILE_COST_FACTOR,
    parse: (bytes) => withFile("journal.ndjson", bytes, (directory) => readJournal(`${directory}/journal.ndjson`)),
    format: ndjson,
  }),
  defineParser({
    name: "offer-file",
    samples: [
      JSON.stringify({
        kind: "offer",
        deploymentId: "0123456789abcdfg",
        storePath,
        mode: "switch",
        rollbackScript: null,
      }),
    ],
    errors: [NixdeployError],
    isExact: true,
    dictionary: JSON_WORDS,
    costFactor: FILE_COST_FACTOR,
    parse: (bytes) =>
      withFile("deployments/0123456789abcdfg/offer.json", bytes, async (stateDirectory) => {
        await using store = await openDeploymentStore({ stateDirectory, clock: systemClock, followed: null });
        return store.journals.map(({ offer }) => offer);
      }),
  }),
  defineParser({
    name: "enrolment-file",
    samples: [
      JSON.stringify({
        coordinatorUrl: "http://x",
        agentId: "0123456789abcdfg",
        workspace: "default",
        pinnedPublicKeys: ["a-1:AAAA"],
      }),
    ],
    errors: [NixdeployError],
    isExact: true,
    dictionary: JSON_WORDS,
    costFactor: FILE_COST_FACTOR,
    parse: (bytes) => withFile("enrolment.json", bytes, readEnrolment),
    format: (enrolment) => JSON.stringify(enrolment),
  }),
  defineParser({
    name: "key-file",
    samples: [`${Buffer.alloc(32, 9).toString("base64")}\n`],
    errors: [NixdeployError],
    costFactor: FILE_COST_FACTOR,
    parse: (bytes) =>
      withFile("key", bytes, async (stateDirectory) => {
        const { publicKey } = await loadIdentity({ stateDirectory, random: systemRandom });
        return publicKey;
      }),
  }),
];
