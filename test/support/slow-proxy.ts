/**
 * A TCP proxy in front of the coordinator that limits what comes down per second and counts it, so that a test can step
 * in while a download is under way. Connections that the far end resets are reset here too.
 */
import { connect, createServer, type Socket } from "node:net";

export type SlowProxy = AsyncDisposable & {
  readonly url: string;
  /** Bytes sent down so far, all connections together. */
  readonly downBytes: number;
  /** Changes the limit, also of connections under way. */
  setBytesPerSecond(bytesPerSecond: number): void;
};

const TICK_MS = 20;

export async function startSlowProxy(options: {
  readonly targetUrl: string;
  readonly bytesPerSecond: number;
}): Promise<SlowProxy> {
  const target = new URL(options.targetUrl);
  const sockets = new Set<Socket>();
  let downBytes = 0;
  let bytesPerSecond = options.bytesPerSecond;

  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    client.pipe(upstream);
    upstream.on("data", (chunk: Buffer) => {
      downBytes += chunk.length;
      client.write(chunk);
      upstream.pause();
      const waitMs = Math.max(TICK_MS, (chunk.length / bytesPerSecond) * 1000);
      setTimeout(() => upstream.resume(), Math.min(waitMs, 1000));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    get downBytes() {
      return downBytes;
    },
    setBytesPerSecond(limit) {
      bytesPerSecond = limit;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
