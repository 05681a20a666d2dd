/**
 * A two-way stream of bytes to a daemon, pull-driven in both directions: `read` takes from the stream only what is
 * asked for, `write` resolves when the kernel has taken the bytes. Over any pair of Node streams; who opens them is
 * in `open-transport.ts`. One reader and one writer at a time.
 */
import type { Readable, Writable } from "node:stream";
import { ConnectionLostError } from "./daemon-error.ts";

export type Transport = {
  /** What is at the other end, for messages: a socket's path or "`nix-daemon --stdio`". */
  readonly peer: string;
  /** The next bytes, null at the end. @throws ConnectionLostError, or the reason given to `destroy` */
  read(): Promise<Uint8Array | null>;
  write(bytes: Uint8Array): Promise<void>;
  /** Ends both directions at once; whatever waits throws `reason`. Later calls change nothing. */
  destroy(reason: unknown): void;
  /** What the other end said outside the protocol (the standard error of a child), for messages; often empty. */
  lastWords(): string;
  /** Destroys and waits until nothing of it is left. Never throws. */
  close(): Promise<void>;
};

export type StreamTransportOptions = {
  readonly peer: string;
  readonly readable: Readable;
  readonly writable: Writable;
  readonly lastWords?: () => string;
  /** Waits until what is behind the streams is gone. Must not throw. */
  readonly finished: () => Promise<void>;
};

export class StreamTransport implements Transport {
  readonly peer: string;
  readonly #options: StreamTransportOptions;
  readonly #chunks: AsyncIterator<unknown>;
  #failure: { readonly reason: unknown } | null = null;
  #rejectWrite: ((reason: unknown) => void) | null = null;

  constructor(options: StreamTransportOptions) {
    const { readable, writable } = options;
    this.peer = options.peer;
    this.#options = options;
    this.#chunks = readable[Symbol.asyncIterator]();
    // A broken write end is reported by the write that meets it; reading goes on, because the daemon's last
    // message may still be on its way.
    writable.on("error", (error) => this.#rejectWrite?.(lost(error)));
    writable.on("close", () => this.#rejectWrite?.(lost(undefined)));
    readable.on("error", () => {
      // The iterator throws it to whoever reads.
    });
  }

  async read(): Promise<Uint8Array | null> {
    this.#throwIfDestroyed();
    let step: IteratorResult<unknown>;
    try {
      step = await this.#chunks.next();
    } catch (error) {
      this.#throwIfDestroyed();
      throw lost(error);
    }
    this.#throwIfDestroyed();
    if (step.done === true) return null;
    if (step.value instanceof Uint8Array) return step.value;
    throw new TypeError("a stream of text where bytes belong");
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#throwIfDestroyed();
    const { writable } = this.#options;
    if (!writable.writable) throw lost(undefined);
    await new Promise<void>((resolve, reject) => {
      this.#rejectWrite = reject;
      writable.write(bytes, (error) => (error ? reject(lost(error)) : resolve()));
    }).finally(() => {
      this.#rejectWrite = null;
    });
  }

  destroy(reason: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = { reason };
    this.#rejectWrite?.(reason);
    this.#options.writable.destroy();
    this.#options.readable.destroy();
  }

  lastWords(): string {
    return this.#options.lastWords?.() ?? "";
  }

  async close(): Promise<void> {
    this.destroy(new ConnectionLostError("we closed the connection"));
    await this.#options.finished();
  }

  #throwIfDestroyed(): void {
    if (this.#failure !== null) throw this.#failure.reason;
  }
}

function lost(cause: unknown): ConnectionLostError {
  const why = cause instanceof Error && "code" in cause ? ` (${String(cause.code)})` : "";
  return new ConnectionLostError(`the daemon closed the connection${why}`, { cause });
}
