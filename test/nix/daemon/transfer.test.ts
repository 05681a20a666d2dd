/** NARs in and out against a scripted daemon: frames, backpressure, and everything that can go wrong half-way. */
import { describe, expect, test } from "bun:test";
import { NixdeployError } from "../../../src/errors.ts";
import type { DaemonConnection } from "../../../src/nix/daemon/connection.ts";
import { DaemonError } from "../../../src/nix/daemon/daemon-error.ts";
import { narHashFromHex } from "../../../src/nix/hash.ts";
import type { PathInfo } from "../../../src/nix/path-info.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";
import {
  type DaemonScene,
  type DoublePeer,
  errorReply,
  int,
  LAST,
  log,
  playDaemonScene,
  str,
  strs,
} from "../../support/daemon-double.ts";
import { waitFor } from "../../support/wait-for.ts";

const lib = parseStorePath("/nix/store/00000000000000000000000000000000-lib");
const app = parseStorePath("/nix/store/11111111111111111111111111111111-app");
const hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const info: PathInfo = {
  storePath: app,
  narHash: narHashFromHex(hex),
  narSizeBytes: 4_000_000,
  references: [lib, app],
  deriver: parseStorePath(`${app}.drv`),
  signatures: ["test-1:c2lnbmF0dXJl"],
  contentAddress: null,
};
/** What AddToStoreNar sends before the frames, with signature checks. */
const ADD_HEAD = [
  ...[int(39), str(app), str(`${app}.drv`), str(hex), strs(lib, app), int(0), int(4_000_000), int(0)],
  ...[strs("test-1:c2lnbmF0dXJl"), str(""), int(0), int(0)],
];
const FRAME_MIN_BYTES = 64 * 1024;
const FRAME_MAX_BYTES = 256 * 1024;

async function withDaemon(
  daemon: DaemonScene["daemon"],
  client: DaemonScene["client"],
  signal = new AbortController().signal,
): Promise<void> {
  await playDaemonScene({ daemon, client, signal });
}

/** The proof that both sides are in step: one more question, answered. */
async function answerOneQuestion(peer: DoublePeer): Promise<void> {
  await peer.expect(int(26), str(lib));
  await peer.send(LAST, int(0));
}

/** The question whether the path is there, answered with yes, then the request for its NAR. */
async function acceptNarRequest(peer: DoublePeer): Promise<void> {
  await peer.expect(int(31), strs(app), int(0));
  await peer.send(LAST, strs(app));
  await peer.expect(int(38), str(app));
}

async function* chunked(bytes: Uint8Array, length: number): AsyncIterable<Uint8Array> {
  for (let start = 0; start < bytes.length; start += length) yield bytes.subarray(start, start + length);
}

/** `count` bytes that differ from place to place. */
function pattern(count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, index) => (index * 31 + (index >> 8)) & 255);
}

function addAll(connection: DaemonConnection, nar: AsyncIterable<Uint8Array>): Promise<void> {
  return connection.addToStoreNar({ info, nar, checkSignatures: true });
}

describe("addToStoreNar", () => {
  test.each([{ chunkBytes: 1_000 }, { chunkBytes: 100_000 }, { chunkBytes: 1_000_000 }])(
    "sends chunks of $chunkBytes bytes as frames of 64 to 256 KiB",
    async ({ chunkBytes }) => {
      const nar = pattern(1_000_001);
      await withDaemon(
        async (peer) => {
          await peer.expect(...ADD_HEAD);
          const frames = await peer.takeFrames();
          expect(Buffer.concat(frames).equals(nar)).toBe(true);
          for (const frame of frames.slice(0, -1)) {
            expect(frame.length).toBeWithin(FRAME_MIN_BYTES, FRAME_MAX_BYTES + 1);
          }
          await peer.send(LAST);
          await answerOneQuestion(peer);
        },
        async (connection) => {
          await addAll(connection, chunked(nar, chunkBytes));
          expect(await connection.queryPathInfo(lib)).toBeNull();
        },
      );
    },
  );

  test("can ask the daemon not to check signatures", async () => {
    const fields = [int(39), str(lib), str(""), str(hex), strs(), int(0), int(3), int(0), strs(), str("text:sha256:x")];
    await withDaemon(
      async (peer) => {
        await peer.expect(...fields, int(0), int(1));
        await peer.expect(int(3), Buffer.from("abc"), int(0));
        await peer.send(LAST);
      },
      async (connection) => {
        const plain = {
          storePath: lib,
          deriver: null,
          references: [],
          signatures: [],
          contentAddress: "text:sha256:x",
        };
        await connection.addToStoreNar({
          info: { ...info, ...plain, narSizeBytes: 3 },
          nar: chunked(Buffer.from("abc"), 1),
          checkSignatures: false,
        });
      },
    );
  });

  test("reads the daemon's log while it sends, so that neither blocks the other", async () => {
    const line = log("x".repeat(64 * 1024));
    const nar = pattern(4_000_000);
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        for (let count = 0; count < 200; count++) await peer.send(line);
        const frames = await peer.takeFrames();
        expect(Buffer.concat(frames).equals(nar)).toBe(true);
        await peer.send(LAST);
      },
      async (connection) => await addAll(connection, chunked(nar, 50_000)),
    );
  });

  test("pulls no faster than the daemon reads", async () => {
    const chunkBytes = 64 * 1024;
    let pulledBytes = 0;
    async function* source() {
      for (; pulledBytes + chunkBytes <= info.narSizeBytes; pulledBytes += chunkBytes) yield new Uint8Array(chunkBytes);
    }
    const reading = Promise.withResolvers<void>();
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        await reading.promise;
        await peer.takeFrames();
        await peer.send(LAST);
      },
      async (connection) => {
        const adding = addAll(connection, source());
        let before = -1;
        const standsStill = () => {
          const isStill = before === pulledBytes;
          before = pulledBytes;
          return isStill;
        };
        await waitFor("the source to stand still, with the kernel's buffers full", standsStill, { intervalMs: 50 });
        expect(pulledBytes).toBeLessThan(2_000_000);
        reading.resolve();
        await adding;
        expect(pulledBytes).toBeGreaterThan(3_900_000);
      },
    );
  });

  test("an error while we send ends the body and says what the daemon said", async () => {
    let isStopped = false;
    async function* endless() {
      try {
        for (;;) {
          yield new Uint8Array(1_000);
          await Bun.sleep(0);
        }
      } finally {
        isStopped = true;
      }
    }
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        await peer.take(8 + FRAME_MIN_BYTES);
        await peer.send(errorReply("\u001b[31;1merror:\u001b[0m no space left"));
        // Drains, as a real daemon does: the rest of the frame, then what follows up to the 0 frame.
        await peer.take(FRAME_MIN_BYTES);
        await peer.takeFrames();
        await answerOneQuestion(peer);
      },
      async (connection) => {
        await expect(addAll(connection, endless())).rejects.toMatchObject({
          message: `cannot add ${app} to the Nix store: no space left`,
          daemonMessage: "no space left",
        });
        await waitFor("the source to stop", () => isStopped);
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("an error while our source is stuck does not wait for the source", async () => {
    async function* stuck() {
      yield new Uint8Array(10);
      await new Promise<never>(() => {});
    }
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        await peer.send(errorReply("go away"));
        expect(await peer.takeFrames()).toEqual([]);
        await answerOneQuestion(peer);
      },
      async (connection) => {
        await expect(addAll(connection, stuck())).rejects.toThrow("go away");
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("throws the source's error, and the connection stays usable", async () => {
    const failure = new Error("download broke");
    async function* broken() {
      yield pattern(300_000);
      throw failure;
    }
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        const frames = await peer.takeFrames();
        expect(Buffer.concat(frames).length).toBeLessThan(300_000);
        await peer.send(errorReply("unexpected end-of-file"));
        await answerOneQuestion(peer);
      },
      async (connection) => {
        await expect(addAll(connection, broken())).rejects.toBe(failure);
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("stops a NAR that is longer than announced before it sends too much", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        const frames = await peer.takeFrames();
        expect(Buffer.concat(frames).length).toBeLessThanOrEqual(info.narSizeBytes);
        await peer.send(errorReply("unexpected end-of-file"));
        await answerOneQuestion(peer);
      },
      async (connection) => {
        const error = await addAll(connection, chunked(pattern(info.narSizeBytes + 1), 100_000)).catch(
          (reason) => reason,
        );
        expect(error).toBeInstanceOf(NixdeployError);
        expect(error).toMatchObject({ kind: "remote" });
        expect(error.message).toEndWith("its NAR is longer than the announced 4000000 bytes");
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("says so when the daemon dies in the middle of a frame, and stops the source", async () => {
    let isStopped = false;
    async function* source() {
      try {
        for (let count = 0; count < 40; count++) yield new Uint8Array(100_000);
      } finally {
        isStopped = true;
      }
    }
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        await peer.take(1_000);
        peer.socket.destroy();
      },
      async (connection) => {
        await expect(addAll(connection, source())).rejects.toThrow(
          /cannot add \S+-app to the Nix store: the daemon closed the connection/,
        );
        expect(isStopped).toBe(true);
      },
    );
  });

  test("an abort in the middle throws the signal's reason and stops the source", async () => {
    const controller = new AbortController();
    let isStopped = false;
    async function* source() {
      try {
        for (let count = 0; count < 40; count++) yield new Uint8Array(100_000);
      } finally {
        isStopped = true;
      }
    }
    await withDaemon(
      async (peer) => {
        await peer.expect(...ADD_HEAD);
        controller.abort(new Error("enough"));
        await peer.hungUp().catch(() => {
          // However the client hung up.
        });
      },
      async (connection) => {
        await expect(addAll(connection, source())).rejects.toThrow("enough");
        expect(isStopped).toBe(true);
      },
      controller.signal,
    );
  });
});

describe("narFromPath", () => {
  /** A directory with one file of `content` and one symlink. */
  function narOf(content: Buffer): Buffer {
    const file = [str("("), str("type"), str("regular"), str("contents"), int(content.length), content];
    const padding = Buffer.alloc((8 - (content.length % 8)) % 8);
    const entry = (name: string, ...node: Buffer[]) => [
      str("entry"),
      str("("),
      str("name"),
      str(name),
      str("node"),
      ...node,
      str(")"),
    ];
    return Buffer.concat([
      ...[str("nix-archive-1"), str("("), str("type"), str("directory")],
      ...entry("file", ...file, padding, str(")")),
      ...entry("link", str("("), str("type"), str("symlink"), str("target"), str("file"), str(")")),
      str(")"),
    ]);
  }

  test.each([{ contentBytes: 3 }, { contentBytes: 0 }, { contentBytes: 1_000_003 }])(
    "gives exactly the NAR of a file of $contentBytes bytes",
    async ({ contentBytes }) => {
      const nar = narOf(Buffer.from(pattern(contentBytes)));
      await withDaemon(
        async (peer) => {
          await acceptNarRequest(peer);
          await peer.send(log("here it comes"), LAST, nar);
          await answerOneQuestion(peer);
        },
        async (connection) => {
          expect(Buffer.concat(await Array.fromAsync(connection.narFromPath(app))).equals(nar)).toBe(true);
          expect(await connection.queryPathInfo(lib)).toBeNull();
        },
      );
    },
  );

  test("operations asked meanwhile wait for its end", async () => {
    const nar = narOf(Buffer.from("abc"));
    await withDaemon(
      async (peer) => {
        await acceptNarRequest(peer);
        await peer.send(LAST, nar);
        await answerOneQuestion(peer);
      },
      async (connection) => {
        const order: string[] = [];
        const chunks = connection.narFromPath(app)[Symbol.asyncIterator]();
        await chunks.next();
        const asking = connection.queryPathInfo(lib).then(() => order.push("info"));
        while ((await chunks.next()).done !== true);
        order.push("nar");
        await asking;
        expect(order).toEqual(["nar", "info"]);
      },
    );
  });

  test("passes on a refusal and stays usable", async () => {
    await withDaemon(
      async (peer) => {
        await acceptNarRequest(peer);
        await peer.send(errorReply(`path '${app}' is not valid`));
        await answerOneQuestion(peer);
      },
      async (connection) => {
        await expect(Array.fromAsync(connection.narFromPath(app))).rejects.toBeInstanceOf(DaemonError);
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("says so when the path is not there, and stays usable", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(31), strs(app), int(0));
        await peer.send(LAST, strs());
        await answerOneQuestion(peer);
      },
      async (connection) => {
        await expect(Array.fromAsync(connection.narFromPath(app))).rejects.toThrow(
          `cannot read ${app} from the Nix store: it is not there`,
        );
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("an early break closes the connection", async () => {
    await withDaemon(
      async (peer) => {
        await acceptNarRequest(peer);
        await peer.send(LAST, narOf(Buffer.alloc(4_000_000))).catch(() => {
          // The client does not take all of it.
        });
        await peer.hungUp().catch(() => {
          // However the client hung up.
        });
      },
      async (connection) => {
        for await (const chunk of connection.narFromPath(app)) {
          expect(chunk.length).toBeGreaterThan(0);
          break;
        }
        await expect(connection.queryPathInfo(lib)).rejects.toThrow(
          /the connection was closed in the middle of \S+-app/,
        );
      },
    );
  });

  test("a stream that ends early is an error at every length", async () => {
    const nar = narOf(Buffer.from("abc"));
    for (let length = 0; length < nar.length; length += 7) {
      await withDaemon(
        async (peer) => {
          await acceptNarRequest(peer);
          await peer.send(LAST, nar.subarray(0, length));
        },
        async (connection) => {
          await expect(Array.fromAsync(connection.narFromPath(app))).rejects.toThrow(
            /cannot read \S+-app from the Nix store: the daemon closed the connection/,
          );
        },
      );
    }
  });

  test("bytes that are no NAR are an error", async () => {
    await withDaemon(
      async (peer) => {
        await acceptNarRequest(peer);
        await peer.send(LAST, str("nix-archive-2"));
        await peer.hungUp();
      },
      async (connection) => {
        await expect(Array.fromAsync(connection.narFromPath(app))).rejects.toThrow("is not the Nix worker protocol");
      },
    );
  });

  test("an abort while nobody reads throws in whoever waits", async () => {
    const controller = new AbortController();
    await withDaemon(
      async (peer) => {
        await acceptNarRequest(peer);
        await peer.send(LAST, str("nix-archive-1"));
        await peer.hungUp();
      },
      async (connection) => {
        const chunks = connection.narFromPath(app)[Symbol.asyncIterator]();
        await chunks.next();
        const waiting = connection.queryPathInfo(lib).catch(String);
        controller.abort(new Error("enough"));
        expect(await waiting).toBe("Error: enough");
        await expect(chunks.next()).rejects.toThrow("enough");
      },
      controller.signal,
    );
  });
});
