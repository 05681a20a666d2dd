/**
 * The network between one device and the coordinator, as a TCP proxy that the test shuts and opens: what is connected
 * when it shuts breaks off, and new connections are reset until it opens again.
 */
import { connect, createServer, type Socket } from "node:net";

export type Gate = AsyncDisposable & {
  /** For the device's agent. */
  readonly url: string;
  readonly isOpen: boolean;
  shut(): void;
  open(): void;
};

export async function startGate(targetUrl: string): Promise<Gate> {
  const target = new URL(targetUrl);
  const sockets = new Set<Socket>();
  let isOpen = true;
  const keep = (socket: Socket, other: Socket) => {
    sockets.add(socket);
    socket.on("error", () => other.destroy());
    socket.on("close", () => {
      sockets.delete(socket);
      other.destroy();
    });
  };
  const breakOff = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const server = createServer((client) => {
    if (!isOpen) {
      client.on("error", () => {});
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(Number(target.port), target.hostname);
    keep(client, upstream);
    keep(upstream, client);
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the gate has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    get isOpen() {
      return isOpen;
    },
    shut() {
      isOpen = false;
      breakOff();
    },
    open() {
      isOpen = true;
    },
    async [Symbol.asyncDispose]() {
      isOpen = false;
      breakOff();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
