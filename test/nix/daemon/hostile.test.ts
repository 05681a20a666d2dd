/**
 * Daemons that stop, flood or contradict themselves in the middle of every operation: each wait ends at its deadline
 * with an error that says what was being done, what streams is told to stop, and nothing goes on afterwards.
 */
import { describe, expect, test } from "bun:test";
import { NixdeployError } from "../../../src/errors.ts";
import { ANSWER_MAX_MS, DaemonChannel } from "../../../src/nix/daemon/channel.ts";
import { type DaemonConnection, OpenDaemonConnection } from "../../../src/nix/daemon/connection.ts";
import { ConnectionLostError, DaemonError } from "../../../src/nix/daemon/daemon-error.ts";
import { formatHashHex } from "../../../src/nix/hash.ts";
import { parseNarInfo } from "../../../src/nix/narinfo.ts";
import type { PathInfo } from "../../../src/nix/path-info.ts";
import { errorReply, int, LAST, log, str, strs } from "../../support/daemon-double.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import {
  createMemoryTransport,
  type MemoryTransport,
  type MemoryTransportOptions,
} from "../../support/memory-transport.ts";
import { readNarInfoVectors, readVector } from "../vectors.ts";

const info: PathInfo = { ...parseNarInfo(readNarInfoVectors()[0]?.text ?? ""), narSizeBytes: 10 * 1024 * 1024 };
const path = info.storePath;
const nar = readVector("nar/nested.nar");
const FRAME_BYTES = 128 * 1024;

type Scene = AsyncDisposable & {
  readonly connection: DaemonConnection;
  readonly transport: MemoryTransport;
  readonly clock: ManualClock;
};

/** A session that is open already: the speech begins with the first reply. */
function openScene(options: MemoryTransportOptions): Scene {
  const transport = createMemoryTransport(options);
  const clock = createManualClock();
  const channel = new DaemonChannel(transport, clock);
  const session = { protocolVersion: "1.38", nixVersion: "2.34.0", trust: "trusted" as const };
  const connection = new OpenDaemonConnection({ channel, session, signal: new AbortController().signal });
  return { connection, transport, clock, [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose]() };
}

/** A NAR in pieces, which knows whether it was told to stop. */
function createSource(pieces: number) {
  const state = { pulled: 0, stopped: false };
  async function* pull(): AsyncGenerator<Uint8Array> {
    try {
      for (; state.pulled < pieces; state.pulled += 1) {
        yield new Uint8Array(FRAME_BYTES);
        await turn();
      }
    } finally {
      state.stopped = true;
    }
  }
  return { state, nar: pull() };
}

const drain = async (chunks: AsyncIterable<Uint8Array>) => {
  for await (const _ of chunks);
};

type Operation = {
  readonly name: string;
  /** Completes "cannot …". */
  readonly what: string;
  readonly run: (connection: DaemonConnection) => Promise<unknown>;
  /** A good daemon's words, piece by piece. */
  readonly speech: readonly Uint8Array[];
};

const pathInfoReply = [
  ...[int(1), str(""), str(formatHashHex(info.narHash)), strs(path), int(0)],
  ...[int(info.narSizeBytes), int(0), strs("a:b"), str("")],
];

const OPERATIONS: readonly Operation[] = [
  {
    name: "queryValidPaths",
    what: "ask the Nix daemon which of 1 paths it has",
    run: (connection) => connection.queryValidPaths([path]),
    speech: [log("one"), LAST, int(1), str(path)],
  },
  {
    name: "listValidPaths",
    what: "ask the Nix daemon for all paths",
    run: (connection) => connection.listValidPaths(),
    speech: [LAST, int(1), str(path)],
  },
  {
    name: "queryPathInfo",
    what: `ask the Nix daemon about ${path}`,
    run: (connection) => connection.queryPathInfo(path),
    speech: [LAST, ...pathInfoReply],
  },
  {
    name: "addTempRoots",
    what: "protect 2 paths from garbage collection",
    run: (connection) => connection.addTempRoots([path, path]),
    speech: [LAST, int(1), log("two"), LAST, int(1)],
  },
  {
    name: "addIndirectRoot",
    what: "make /x a garbage collection root",
    run: (connection) => connection.addIndirectRoot("/x"),
    speech: [LAST, int(1)],
  },
  {
    name: "addToStoreNar",
    what: `add ${path} to the Nix store`,
    run: (connection) => connection.addToStoreNar({ info, nar: createSource(3).nar, checkSignatures: true }),
    speech: [log("unpacking"), LAST],
  },
  {
    name: "narFromPath",
    what: `read ${path} from the Nix store`,
    run: (connection) => drain(connection.narFromPath(path)),
    speech: [LAST, strs(path), LAST, nar],
  },
];

/** The error that the work ends with; time passes while we wait. */
async function failureOf(work: Promise<unknown>, clock: ManualClock): Promise<unknown> {
  let failure: unknown = null;
  let isOver = false;
  const watched = work.then(
    () => {
      isOver = true;
    },
    (error: unknown) => {
      isOver = true;
      failure = error;
    },
  );
  // Every deadline may pass once: sending, the answer, its fields.
  for (let round = 0; round < 6 && !isOver; round += 1) await clock.advance(ANSWER_MAX_MS);
  if (!isOver) throw new Error("it hangs");
  await watched;
  return failure;
}

async function expectGivenUp(failure: unknown, operation: Operation, scene: Scene): Promise<void> {
  expect(failure).toBeInstanceOf(NixdeployError);
  expect(String(failure)).toContain(
    `cannot ${operation.what}: the daemon gave no answer for ${ANSWER_MAX_MS / 1000} s`,
  );
  expect(scene.transport.isDestroyed).toBe(true);
  expect(scene.clock.sleepers).toBe(0);
  await expect(scene.connection.queryValidPaths([path])).rejects.toThrow("was lost before");
}

for (const operation of OPERATIONS) {
  describe(operation.name, () => {
    test("works with a good daemon, however its words are cut", async () => {
      for (const chunks of [operation.speech, eachByte(Buffer.concat(operation.speech))]) {
        await using scene = openScene({ chunks, thenStalls: true });
        await operation.run(scene.connection);
        expect(scene.clock.sleepers).toBe(0);
      }
    });

    test("a daemon that stalls anywhere is given up", async () => {
      const speech = Buffer.concat(operation.speech);
      const last = operation.speech.at(-1)?.length ?? 0;
      for (let length = 0; length < speech.length; length += length > 64 && last > 200 ? 97 : 5) {
        await using scene = openScene({ chunks: [speech.subarray(0, length)], thenStalls: true });
        await expectGivenUp(await failureOf(operation.run(scene.connection), scene.clock), operation, scene);
      }
    });

    test("a daemon that takes nothing from us is given up", async () => {
      // What it says is no help: an answer to what it has not read is none.
      await using scene = openScene({ chunks: [], thenStalls: true, takesBytes: 8 });
      await expectGivenUp(await failureOf(operation.run(scene.connection), scene.clock), operation, scene);
    });

    test("a daemon that logs without end is given up", async () => {
      await using scene = openScene({ chunks: endless(log("still at it")) });
      await expectGivenUp(await failureOf(operation.run(scene.connection), scene.clock), operation, scene);
    });

    test("a daemon that refuses it and goes on is believed both times", async () => {
      const again = [LAST, strs(path)];
      const before = operation.name === "narFromPath" ? [LAST, strs(path)] : [];
      const refusals = operation.name === "addTempRoots" ? [errorReply("no"), errorReply("no")] : [errorReply("no")];
      await using scene = openScene({ chunks: [...before, log("x"), ...refusals, ...again], thenStalls: true });
      const failure = await failureOf(operation.run(scene.connection), scene.clock);
      expect(failure).toBeInstanceOf(DaemonError);
      expect(String(failure)).toContain(": no");
      expect(await scene.connection.queryValidPaths([path])).toEqual(new Set([path]));
    });

    test("a daemon that sends what is not the protocol is named as such", async () => {
      for (const nonsense of ["HTTP/1.1 400 Bad Request\r\n\r\n", "\xff".repeat(64), "nix-archive-1\0\0\0".repeat(9)]) {
        await using scene = openScene({ chunks: [Buffer.from(nonsense, "latin1")], thenStalls: true });
        const failure = await failureOf(operation.run(scene.connection), scene.clock);
        expect(String(failure)).toContain("is not the Nix worker protocol");
        expect(scene.transport.isDestroyed).toBe(true);
      }
    });
  });
}

describe("while we send a NAR", () => {
  test("an error at any time ends the body at a frame's border, and the connection stays usable", async () => {
    for (let frames = 0; frames <= 5; frames += 1) {
      const source = createSource(40);
      const scene = openScene({ chunks: speech(), thenStalls: true });
      async function* speech(): AsyncGenerator<Uint8Array> {
        // The request itself is the first thing that is written.
        while (scene.transport.written.length <= frames) await turn();
        yield Buffer.concat([log("hm"), errorReply("disk full")]);
        yield Buffer.concat([LAST, strs(path)]);
      }
      const add = scene.connection.addToStoreNar({ info, nar: source.nar, checkSignatures: true });
      expect(String(await failureOf(add, scene.clock))).toContain("disk full");
      expect(source.state).toMatchObject({ stopped: true });
      expect(source.state.pulled).toBeLessThan(40);
      expect(scene.transport.written.at(-1)).toEqual(new Uint8Array(int(0)));
      expect(await scene.connection.queryValidPaths([path])).toEqual(new Set([path]));
      await scene.connection[Symbol.asyncDispose]();
    }
  });

  test("a daemon that stops taking frames is given up, and the source is stopped", async () => {
    for (const frames of [0, 1, 3]) {
      const source = createSource(40);
      await using scene = openScene({ chunks: [], thenStalls: true, takesBytes: 1_000 + frames * (FRAME_BYTES + 8) });
      const add = scene.connection.addToStoreNar({ info, nar: source.nar, checkSignatures: true });
      expect(String(await failureOf(add, scene.clock))).toContain("the daemon gave no answer");
      expect(source.state.stopped).toBe(true);
      expect(scene.clock.sleepers).toBe(0);
    }
  });

  test("a daemon that dies in the middle of a frame ends it, and the source is stopped", async () => {
    for (const writes of [1, 2, 4]) {
      const source = createSource(40);
      const scene = openScene({ chunks: speech() });
      async function* speech(): AsyncGenerator<Uint8Array> {
        while (scene.transport.written.length < writes) await turn();
        yield log("oh no");
        scene.transport.destroy(new ConnectionLostError("the daemon closed the connection (EPIPE)"));
      }
      const add = scene.connection.addToStoreNar({ info, nar: source.nar, checkSignatures: true });
      expect(String(await failureOf(add, scene.clock))).toContain(
        `cannot add ${path} to the Nix store: the daemon closed`,
      );
      expect(source.state.stopped).toBe(true);
      await scene.connection[Symbol.asyncDispose]();
    }
  });

  test("a log without end does not keep the frames from leaving", async () => {
    const source = createSource(20);
    const scene = openScene({ chunks: speech(), thenStalls: true });
    async function* speech(): AsyncGenerator<Uint8Array> {
      const line = log("x".repeat(10_000));
      // The 0 frame is the last thing that we send.
      while (scene.transport.written.at(-1)?.length !== 8) {
        yield line;
        await turn();
      }
      yield LAST;
    }
    await scene.connection.addToStoreNar({ info, nar: source.nar, checkSignatures: true });
    expect(source.state.pulled).toBe(20);
    await scene.connection[Symbol.asyncDispose]();
  });
});

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function eachByte(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
}

/** As from a socket: the event loop turns between the chunks. */
async function* endless(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
  for (;;) {
    yield chunk;
    await turn();
  }
}
