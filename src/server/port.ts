/**
 * The port for everyone, which can go over to another certificate while it serves.
 *
 * Bun's `server.reload` leaves the certificate as it is (tried with 1.4.5). So a second server takes the same port
 * (SO_REUSEPORT), and the first one stops to listen and keeps its connections until they end. What is in the kernel's
 * queue of the first one in that instant is reset; clients try again.
 */
import type { Server } from "bun";

/** PEM texts. */
export type TlsPair = { readonly cert: string; readonly key: string };

export type Port = {
  /** `https://127.0.0.1:8470` */
  readonly url: string;
  /** New connections get this pair. @throws when Bun does not take it; nothing has changed then */
  replaceTls(pair: TlsPair): void;
  /** Takes no new connections; those that there are go on. */
  stopListening(): void;
  /** Ends what there is. */
  close(): Promise<void>;
};

export type StartServer<Data> = (options: {
  readonly port: number;
  readonly tls: TlsPair | null;
  readonly reusePort: boolean;
}) => Server<Data>;

/** @throws what Bun throws when the port cannot be had */
export function openPort<Data>(
  start: StartServer<Data>,
  { port: wanted, tls }: { readonly port: number; readonly tls: TlsPair | null },
): Port {
  // In production Bun shares a port that is taken, and nobody would be told: so it is first taken alone.
  const alone = start({ port: wanted, tls, reusePort: false });
  const port = alone.port ?? wanted;
  const { origin: url } = alone.url;
  if (tls !== null) void alone.stop(true);
  let current = tls === null ? alone : start({ port, tls, reusePort: true });
  const retired = new Set<Server<Data>>();
  return {
    url,
    replaceTls(pair) {
      const before = current;
      current = start({ port, tls: pair, reusePort: true });
      void before.stop(false);
      for (const server of retired) if (isDone(server)) retired.delete(server);
      retired.add(before);
    },
    stopListening: () => void current.stop(false),
    close: async () => void (await Promise.all([current, ...retired].map((server) => server.stop(true)))),
  };
}

function isDone(server: Server<unknown>): boolean {
  return server.pendingRequests === 0 && server.pendingWebSockets === 0;
}
