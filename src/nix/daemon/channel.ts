/**
 * One conversation with a daemon: a transport, the reader of its bytes, and a deadline on every wait. A daemon that
 * is silent for too long is given up: the transport is destroyed, and whoever waits gets the reason.
 */
import type { Clock } from "../../runtime.ts";
import { ByteReader } from "./byte-reader.ts";
import { DaemonSilentError } from "./daemon-error.ts";
import type { Transport } from "./transport.ts";

/**
 * How long the daemon may take for one answer. Generous: before it answers, a daemon may wait for another process
 * that imports the same path, or for a garbage collection that its `min-free` setting started.
 */
export const ANSWER_MAX_MS = 30 * 60_000;

export class DaemonChannel {
  readonly peer: string;
  readonly reader: ByteReader;
  readonly #transport: Transport;
  readonly #clock: Clock;

  constructor(transport: Transport, clock: Clock) {
    this.peer = transport.peer;
    this.reader = new ByteReader(() => transport.read());
    this.#transport = transport;
    this.#clock = clock;
  }

  /** Resolves when the kernel has taken the bytes. */
  async send(bytes: Uint8Array): Promise<void> {
    await this.within(ANSWER_MAX_MS, this.#transport.write(bytes));
  }

  /** Waits for `work`, which must be waiting for this channel; destroys the channel when the time is up. */
  async within<T>(durationMs: number, work: Promise<T>): Promise<T> {
    const done = new AbortController();
    const timer = this.#clock.sleep(durationMs, done.signal).then(
      () => this.destroy(new DaemonSilentError(durationMs)),
      () => {
        // `work` was faster.
      },
    );
    try {
      return await work;
    } finally {
      done.abort();
      await timer;
    }
  }

  lastWords(): string {
    return this.#transport.lastWords();
  }

  destroy(reason: unknown): void {
    this.#transport.destroy(reason);
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }
}
