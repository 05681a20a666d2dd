/**
 * A Nix daemon of bytes: a Unix socket whose other end follows a script, word by word, for what a real daemon will
 * not do on demand. The encoding is written a second time here, independently of src/nix/daemon, so that a mistake
 * there cannot hide. Like a real daemon it does one thing at a time: while it writes, it does not read.
 */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { connectDaemon } from "../../src/nix/daemon/connect.ts";
import type { DaemonConnection } from "../../src/nix/daemon/connection.ts";
import { createTemporaryDirectory } from "./temporary-directory.ts";

/** u64, little endian. */
export function int(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** Length, bytes, zero padding. */
export function str(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([int(bytes.length), bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)]);
}

export function strs(...texts: readonly string[]): Buffer {
  return Buffer.concat([int(texts.length), ...texts.map(str)]);
}

export const LAST = int(0x616c7473);

/** STDERR_NEXT */
export function log(line: string): Buffer {
  return Buffer.concat([int(0x6f6c6d67), str(line)]);
}

/** STDERR_ERROR as Nix 2.4 and newer write it. */
export function errorReply(message: string, traces: readonly string[] = []): Buffer {
  const head = [int(0x63787470), str("Error"), int(0), str("Error"), str(message), int(0), int(traces.length)];
  return Buffer.concat([...head, ...traces.flatMap((trace) => [int(0), str(trace)])]);
}

/** The daemon's end of one connection. */
export class DoublePeer {
  readonly socket: Socket;
  readonly #chunks: AsyncIterator<unknown>;
  #held: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    this.#chunks = socket[Symbol.asyncIterator]();
    socket.on("error", () => {
      // The client may hang up at any time; the script sees it when it reads or writes.
    });
  }

  /** Resolves when the kernel has taken the bytes. */
  async send(...parts: readonly Uint8Array[]): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.socket.write(Buffer.concat(parts), (error) => (error ? reject(error) : resolve()));
    });
  }

  async take(count: number): Promise<Buffer> {
    while (this.#held.length < count) {
      const step = await this.#chunks.next();
      if (step.done === true) throw new Error(`the client hung up; ${this.#held.length} of ${count} bytes came`);
      if (!Buffer.isBuffer(step.value)) throw new Error("not bytes");
      this.#held = Buffer.concat([this.#held, step.value]);
    }
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }

  /** The client must send exactly these bytes next. */
  async expect(...parts: readonly Uint8Array[]): Promise<void> {
    const wanted = Buffer.concat(parts);
    const got = await this.take(wanted.length);
    if (!got.equals(wanted))
      throw new Error(`the client sent\n${got.toString("hex")}\nwhere belongs\n${wanted.toString("hex")}`);
  }

  async takeInt(): Promise<number> {
    return Number((await this.take(8)).readBigUInt64LE());
  }

  async takeStr(): Promise<string> {
    const length = await this.takeInt();
    return (await this.take(Math.ceil(length / 8) * 8)).subarray(0, length).toString();
  }

  async takeStrs(): Promise<string[]> {
    const texts: string[] = [];
    for (let left = await this.takeInt(); left > 0; left--) texts.push(await this.takeStr());
    return texts;
  }

  /** Frames up to the 0 frame. */
  async takeFrames(): Promise<Buffer[]> {
    const frames: Buffer[] = [];
    for (let length = await this.takeInt(); length > 0; length = await this.takeInt())
      frames.push(await this.take(length));
    return frames;
  }

  /** Resolves when the client has closed. */
  async hungUp(): Promise<void> {
    while ((await this.#chunks.next()).done !== true) {
      // What it still sent is of no interest.
    }
  }
}

export type DaemonDouble = AsyncDisposable & {
  readonly socketPath: string;
  /** Settles as the script of the first connection does. */
  readonly finished: Promise<void>;
};

/** Listens; runs `script` for each connection and closes it afterwards. Disposing throws what a script threw. */
export async function startDaemonDouble(script: (peer: DoublePeer) => Promise<void>): Promise<DaemonDouble> {
  const directory = await createTemporaryDirectory("double");
  const socketPath = directory.join("d.sock");
  const runs: Promise<void>[] = [];
  const sockets = new Set<Socket>();
  const first = Promise.withResolvers<void>();
  first.promise.catch(() => {
    // Thrown again when the double is disposed.
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    const run = script(new DoublePeer(socket)).finally(() => socket.destroy());
    runs.push(run);
    run.then(first.resolve, first.reject);
  });
  server.listen(socketPath);
  await once(server, "listening");
  return {
    socketPath,
    finished: first.promise,
    [Symbol.asyncDispose]: async () => {
      server.close();
      try {
        await Promise.all(runs);
      } finally {
        for (const socket of sockets) socket.destroy();
        await directory[Symbol.asyncDispose]();
      }
    },
  };
}

/** The words both sides exchange before the first operation, from protocol 1.34 on. */
export async function playHandshake(
  peer: DoublePeer,
  options: { readonly minor?: number; readonly trust?: number; readonly features?: readonly string[] } = {},
): Promise<void> {
  const { minor = 34, trust = 0 } = options;
  const { features = ["realisation-with-path-not-hash", "delete-dead-specific-referrers"] } = options;
  const common = Math.min(minor, 38);
  await peer.expect(int(0x6e697863));
  await peer.send(int(0x6478696f), int(256 + minor));
  await peer.expect(int(256 + common));
  if (common >= 38) {
    await peer.expect(strs());
    await peer.send(strs(...features));
  }
  await peer.expect(int(0), int(0));
  await peer.send(str(`2.${minor}.0`));
  if (common >= 35) await peer.send(int(trust));
  await peer.send(LAST);
  await peer.expect(SET_OPTIONS);
  await peer.send(LAST);
}

/**
 * The same as Lix's daemon does it, by its own source and release notes: never met for real. Lix stays at 1.35, that of
 * Nix 2.18, for good, so that there are no features; it takes no client below 1.35 (since 2.94) and hangs up on one.
 * Source: Lix 2.95.3, lix/libstore/daemon.cc (processConnection), worker-protocol.hh and .cc; doc/manual,
 * release notes of 2.91.
 */
export async function playLixHandshake(peer: DoublePeer, options: { readonly trust: 0 | 1 | 2 }): Promise<void> {
  await peer.expect(int(0x6e697863));
  await peer.send(int(0x6478696f), int(256 + 35));
  const clientVersion = await peer.takeInt();
  if (clientVersion < 256 + 35) throw new Error(`Lix would hang up on a client of version ${clientVersion}`);
  // CPU affinity, which would be followed by its mask, and reserved space.
  if ((await peer.takeInt()) !== 0) await peer.takeInt();
  await peer.takeInt();
  await peer.send(str("2.95.3"), int(options.trust));
  await peer.send(LAST);
  await peer.expect(SET_OPTIONS);
  await peer.send(LAST);
}

/** Operation 19: everything off, errors only, one build job, build hook 1 (obsolete), no substitutes, no overrides. */
const SET_OPTIONS = Buffer.concat([19, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0].map(int));

export type DaemonScene = {
  /** What the daemon does after the handshake. */
  readonly daemon: (peer: DoublePeer) => Promise<void>;
  readonly client: (connection: DaemonConnection) => Promise<void>;
  readonly signal?: AbortSignal;
};

/** Plays both sides to their end. @throws what either threw, together when both did */
export async function playDaemonScene(scene: DaemonScene): Promise<void> {
  const { signal = new AbortController().signal } = scene;
  const double = await startDaemonDouble(async (peer) => {
    await playHandshake(peer);
    await scene.daemon(peer);
  });
  const failures: unknown[] = [];
  try {
    await using connection = await connectDaemon({
      signal,
      via: "socket",
      socketPath: double.socketPath,
      environment: {},
    });
    await scene.client(connection);
  } catch (error) {
    failures.push(error);
  }
  try {
    await double[Symbol.asyncDispose]();
  } catch (error) {
    failures.push(error);
  }
  if (failures.length > 1) throw new Error(failures.map((failure) => Bun.inspect(failure)).join("\nand\n"));
  if (failures.length > 0) throw failures[0];
}
