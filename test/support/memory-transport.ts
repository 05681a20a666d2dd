/**
 * The bytes of a connection to a Nix daemon, in memory: what the daemon says is a script of chunks, what we say is
 * collected. For inputs by the thousand and for daemons that stop in the middle; a socket and a daemon that listens
 * are in daemon-double.ts.
 */
import { ConnectionLostError } from "../../src/nix/daemon/daemon-error.ts";
import type { Transport } from "../../src/nix/daemon/transport.ts";

export type MemoryTransport = Transport & {
  /** Everything that was written. */
  readonly written: Uint8Array[];
  readonly isDestroyed: boolean;
};

export type MemoryTransportOptions = {
  /** What the daemon says, pulled chunk by chunk; then it hangs up. */
  readonly chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** Instead of hanging up it says nothing any more. */
  readonly thenStalls?: boolean;
  /** From this many bytes on it takes nothing from us. */
  readonly takesBytes?: number;
};

export function createMemoryTransport(options: MemoryTransportOptions): MemoryTransport {
  const { chunks, thenStalls = false, takesBytes = Number.POSITIVE_INFINITY } = options;
  const iterator = toAsync(chunks);
  const written: Uint8Array[] = [];
  const destroyed = Promise.withResolvers<never>();
  destroyed.promise.catch(() => {
    // Whoever waits gets it.
  });
  let isDestroyed = false;
  let takenBytes = 0;
  return {
    peer: "a daemon in memory",
    written,
    get isDestroyed() {
      return isDestroyed;
    },
    async read() {
      if (isDestroyed) return await destroyed.promise;
      const step = await Promise.race([iterator.next(), destroyed.promise]);
      if (step.done !== true) return step.value;
      return thenStalls ? await destroyed.promise : null;
    },
    async write(bytes) {
      takenBytes += bytes.length;
      if (isDestroyed || takenBytes > takesBytes) await destroyed.promise;
      written.push(bytes);
    },
    destroy(reason) {
      isDestroyed = true;
      destroyed.reject(reason);
    },
    lastWords: () => "",
    async close() {
      this.destroy(new ConnectionLostError("we closed the connection"));
    },
  };
}

async function* toAsync(chunks: MemoryTransportOptions["chunks"]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}
