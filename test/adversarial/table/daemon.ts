/**
 * The client of the worker protocol as a parser: the input is everything a daemon says, from its magic number to the
 * last byte of a NAR, and we hold a whole conversation against it.
 */
import { NixdeployError } from "../../../src/errors.ts";
import { DaemonChannel } from "../../../src/nix/daemon/channel.ts";
import { OpenDaemonConnection } from "../../../src/nix/daemon/connection.ts";
import { DaemonError, explainFailure } from "../../../src/nix/daemon/daemon-error.ts";
import { openSession } from "../../../src/nix/daemon/handshake.ts";
import { formatHashHex } from "../../../src/nix/hash.ts";
import { parseNarInfo } from "../../../src/nix/narinfo.ts";
import type { PathInfo } from "../../../src/nix/path-info.ts";
import { readNarInfoVectors, readVector } from "../../nix/vectors.ts";
import { errorReply, int, LAST, log, str, strs } from "../../support/daemon-double.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryTransport } from "../../support/memory-transport.ts";
import { defineParser, type Parser } from "../parser.ts";

const info: PathInfo = parseNarInfo(readNarInfoVectors().at(-1)?.text ?? "");
const path = info.storePath;
const nar = readVector("nar/executable.nar");

const activity = Buffer.concat([
  ...[int(0x53545254), int(1), int(3), int(105), str("building"), int(2), int(0), int(7), int(1), str("x"), int(0)],
  ...[int(0x52534c54), int(1), int(105), int(1), int(0), int(5), int(0x53544f50), int(1)],
]);
const pathInfoReply = Buffer.concat([
  ...[int(1), str(info.deriver ?? ""), str(formatHashHex(info.narHash)), strs(...info.references), int(0)],
  ...[int(info.narSizeBytes), int(0), strs(...info.signatures), str(info.contentAddress ?? "")],
]);

function handshake(minor: number): Uint8Array {
  const features = minor >= 38 ? [strs("a-feature")] : [];
  const trust = minor >= 35 ? [int(1)] : [];
  return Buffer.concat([int(0x6478696f), int(256 + minor), ...features, str("2.8.0"), ...trust, LAST, LAST]);
}

/** Everything that a daemon of this minor version says in {@link converse}. */
export function daemonSpeech(minor: number): Uint8Array {
  const validPaths = [log("a line"), LAST, strs(path)];
  const tempRoots = [LAST, int(1), errorReply("no room", ["while looking"])];
  return Buffer.concat([
    ...[handshake(minor), ...validPaths, activity, LAST, pathInfoReply, ...tempRoots, log("unpacking"), LAST],
    ...[LAST, strs(path), LAST, nar],
  ]);
}

/** Asks for everything once; refusals by the daemon are answers like others. */
export async function converse(chunks: readonly Uint8Array[]): Promise<unknown> {
  const channel = new DaemonChannel(createMemoryTransport({ chunks }), createManualClock());
  const session = await openSession(channel).catch((error: unknown) => {
    throw explainFailure(error, { what: "use the daemon", peer: channel.peer, lastWords: "" });
  });
  await using connection = new OpenDaemonConnection({ channel, session, signal: new AbortController().signal });
  const answers: unknown[] = [session];
  const ask = async (question: () => Promise<unknown>) => {
    try {
      answers.push(await question());
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      answers.push(error.message);
    }
  };
  await ask(async () => [...(await connection.queryValidPaths([path]))]);
  await ask(() => connection.queryPathInfo(path));
  await ask(() => connection.addTempRoots([path, path]));
  await ask(() => connection.addToStoreNar({ info, nar: piece(), checkSignatures: true }));
  await ask(async () => Buffer.concat(await Array.fromAsync(connection.narFromPath(path))).toString("hex"));
  return answers;
}

async function* piece(): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(64);
}

export const daemonParsers: readonly Parser[] = [
  defineParser({
    name: "daemon",
    samples: [34, 35, 38].map(daemonSpeech),
    errors: [NixdeployError],
    dictionary: [LAST, log("line"), errorReply("no"), activity, int(0), int(1), int(2 ** 40), str("x"), strs("a", "b")],
    costFactor: 10,
    floods: {
      "a log without end": () => Buffer.concat([handshake(34), Buffer.concat(Array(40_000).fill(log("a line")))]),
      "features without end": () => Buffer.concat([int(0x6478696f), int(256 + 38), strs(...Array(60_000).fill("f"))]),
      "references without end": () =>
        Buffer.concat([
          ...[handshake(34), LAST, strs(path), LAST, int(1), str(""), str(formatHashHex(info.narHash))],
          strs(...Array(15_000).fill(path)),
        ]),
      "traces without end": () => Buffer.concat([handshake(34), errorReply("no", Array(30_000).fill("trace"))]),
      "one long error": () => Buffer.concat([handshake(34), errorReply("\x1b[31mno\n".repeat(100_000))]),
      "a string of 2^53 - 1 bytes": () =>
        Buffer.concat([handshake(34), LAST, int(1), int(2 ** 53 - 1), Buffer.alloc(1024 * 1024)]),
      "a count of 2^53 - 1": () => Buffer.concat([handshake(34), LAST, int(2 ** 53 - 1), Buffer.alloc(1024 * 1024)]),
    },
    parseChunks: converse,
  }),
];
