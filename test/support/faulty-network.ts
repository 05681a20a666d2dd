/**
 * The way between a client and the coordinator, with what goes wrong on real ones: lines that are very slow, and peers
 * that vanish without a word. A TCP proxy: what it keeps back stays in the kernel, as on a real line.
 */
import { connect, createServer, type Socket } from "node:net";

export type FaultyNetwork = AsyncDisposable & {
  readonly url: string;
  /** The first line of each request, in the order of their coming. */
  readonly requests: readonly string[];
  /** Bytes that came down on connections slowed by `slowDown`. */
  readonly slowBytes: number;
  /** Requests whose first line matches get the body of their answers at one byte a second. */
  slowDown(pattern: RegExp): void;
  /** At full speed again, those under way included. */
  speedUp(): void;
  /** From now on nothing passes on any connection there is, in either direction, and none is ever closed. */
  vanish(): void;
};

type Line = {
  readonly client: Socket;
  readonly upstream: Socket;
  /** Of the request that is under way. */
  firstLine: string;
  /** Whether the head of its answer has passed. */
  isBody: boolean;
  isDead: boolean;
};

/** Clients send one request after the other on a connection. */
const FIRST_LINE = /^(?:GET|HEAD|POST|PUT|PATCH|DELETE) \S+ HTTP\/1\.1(?=\r\n)/;

const SLOW_INTERVAL_MS = 1_000;
const FIRST_LINE_BYTES_MAX = 4_096;

export async function startFaultyNetwork(targetUrl: string): Promise<FaultyNetwork> {
  const target = new URL(targetUrl);
  const host = target.hostname.replace(/^\[|\]$/g, "");
  const lines = new Set<Line>();
  const requests: string[] = [];
  let slow: RegExp | null = null;
  let slowBytes = 0;

  const carryDown = createDownstream({
    isSlow: (line) => slow?.test(line.firstLine) === true,
    onSlowByte: () => {
      slowBytes += 1;
    },
  });
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = connect({ port: Number(target.port), host, allowHalfOpen: true });
    const line: Line = { client, upstream, firstLine: "", isBody: false, isDead: false };
    lines.add(line);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on("error", () => line.isDead || to.destroy());
      from.on("close", () => line.isDead || to.destroy());
      from.on("end", () => line.isDead || to.end());
    }
    client.on("data", (chunk: Buffer) => {
      if (line.isDead) return;
      const [firstLine] = FIRST_LINE.exec(chunk.toString("latin1", 0, FIRST_LINE_BYTES_MAX)) ?? [];
      if (firstLine !== undefined) {
        line.firstLine = firstLine;
        line.isBody = false;
        requests.push(firstLine);
      }
      if (!upstream.write(chunk)) {
        client.pause();
        upstream.once("drain", () => line.isDead || client.resume());
      }
    });
    carryDown(line);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the network has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    get slowBytes() {
      return slowBytes;
    },
    slowDown(pattern) {
      slow = pattern;
    },
    speedUp() {
      slow = null;
    },
    vanish() {
      for (const line of lines) {
        line.isDead = true;
        line.client.pause();
        line.upstream.pause();
      }
    },
    async [Symbol.asyncDispose]() {
      for (const { client, upstream } of lines) {
        client.destroy();
        upstream.destroy();
      }
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Heads at once, bodies byte by byte while the line is slow. */
function createDownstream(options: { isSlow: (line: Line) => boolean; onSlowByte: () => void }) {
  return (line: Line) => {
    const { client, upstream } = line;
    upstream.on("data", async (chunk: Buffer) => {
      if (line.isDead) return;
      upstream.pause();
      const headEnd = line.isBody ? 0 : chunk.indexOf("\r\n\r\n") + 4;
      line.isBody ||= headEnd > 3;
      let sent = options.isSlow(line) ? headEnd : 0;
      if (sent > 0) client.write(chunk.subarray(0, sent));
      while (sent < chunk.length && options.isSlow(line) && !line.isDead && !client.destroyed) {
        await Bun.sleep(SLOW_INTERVAL_MS);
        if (line.isDead) return;
        client.write(chunk.subarray(sent, sent + 1));
        sent += 1;
        options.onSlowByte();
      }
      if (line.isDead) return;
      if (sent < chunk.length && !client.write(chunk.subarray(sent))) {
        client.once("drain", () => line.isDead || upstream.resume());
      } else {
        upstream.resume();
      }
    });
  };
}
