/** The parsers of the agent: what programs print, and the files of its state directory. */
import { chmod } from "node:fs/promises";
import { z } from "zod";
import { readOfferedChecks } from "../../../src/agent/health/offered-checks.ts";
import { parseFile } from "../../../src/agent/health/own-health-checks.ts";
import { openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { openJournalFile } from "../../../src/agent/journal/journal-file.ts";
import { readEnrolment } from "../../../src/agent/link/enrolment.ts";
import { loadIdentity } from "../../../src/agent/link/identity.ts";
import { createLineSplitter } from "../../../src/agent/machine/line-splitter.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { type Offer, offerSchema, type ReportEntry } from "../../../src/protocol.ts";
import { systemClock, systemRandom } from "../../../src/runtime.ts";
import { parseUnitChanges, unitChangesSchema } from "../../../src/unit-changes.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { defineParser, type Parser, textOf } from "../parser.ts";
import { HEALTH_CHECKS, HEALTH_WORDS, JSON_WORDS } from "./contracts.ts";

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

/** An offer with these health checks, as it came through the schema of frames. */
function parseOffer(text: string): Offer {
  const healthChecks: unknown = parseJson(text);
  return offerSchema.parse({
    ...{ kind: "offer", deploymentId: "0123456789abcdfg", storePath, mode: "switch", rollbackScript: null },
    healthChecks,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new NixdeployError("remote", "no JSON", { cause });
  }
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
    name: "offered-health-checks",
    samples: [JSON.stringify(HEALTH_CHECKS)],
    // What is no list of few does not pass the frame's own schema.
    errors: [NixdeployError, z.core.$ZodError],
    isExact: true,
    dictionary: [...JSON_WORDS, ...HEALTH_WORDS],
    parse: (bytes) => readOfferedChecks(parseOffer(textOf(bytes))),
    format: (checks) => JSON.stringify(checks),
  }),
  defineParser({
    name: "unit-changes",
    samples: [
      "would stop the following units: a.service, b.mount\nwould activate the configuration...\nwould restart systemd\n",
      "would NOT stop the following changed units: x.service\nwould stop swap device: /dev/sda1",
    ],
    errors: [],
    dictionary: ["would ", "stop", "reload", "restart", "start", " the following units: ", ", ", "\n", " […1 more"],
    floods: {
      "many units": () => `would start the following units: ${"a.service, ".repeat(90_000)}`,
      "many lines": () => "would stop swap device: x\n".repeat(40_000),
    },
    parse: (bytes) => unitChangesSchema.parse(parseUnitChanges(textOf(bytes).split("\n"))),
  }),
  defineParser({
    name: "own-health-checks",
    samples: [JSON.stringify({ healthChecks: HEALTH_CHECKS })],
    errors: [NixdeployError],
    isExact: true,
    dictionary: [...JSON_WORDS, ...HEALTH_WORDS],
    floods: {
      "checks that are none": () => `{"healthChecks":[${"0,".repeat(400_000)}0]}`,
      "many unknown keys": () => `{${Array.from({ length: 60_000 }, (_, n) => `"k${n}":0`).join(",")}}`,
    },
    parse: (bytes) => parseFile(textOf(bytes), "checks.json"),
    format: (healthChecks) => JSON.stringify({ healthChecks }),
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
