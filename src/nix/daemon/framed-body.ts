/**
 * Sends a stream of bytes as the frames of AddToStoreNar: int(length), that many bytes, no padding; int(0) ends it.
 * Pulls from the source only when the last frame has left. Always ends at a frame's border with the 0 frame, also
 * when the source throws or the daemon has answered early: only then can the daemon read on.
 */
import { encodeIntInto } from "./wire.ts";

/** Within the 64 to 256 KiB that Nix imports fastest; a daemon holds one frame in memory. */
const FRAME_MAX_BYTES = 128 * 1024;
const HEADER_BYTES = 8;

export type BodyOutcome =
  /** All of it was sent. */
  | { readonly kind: "sent" }
  /** The daemon answered before the end; the rest was not sent. */
  | { readonly kind: "answered-early" }
  /** The source threw; the frame it was filling was not sent. */
  | { readonly kind: "source-failed"; readonly error: unknown };

export type FramedBodyOptions = {
  readonly source: AsyncIterable<Uint8Array>;
  /** Resolves when nobody reads the bytes any more: their buffer is used for the next frame. */
  readonly send: (bytes: Uint8Array) => Promise<void>;
  /** Settles when the daemon has answered; only watched here. */
  readonly answer: Promise<unknown>;
};

/** @throws whatever `send` throws, after the source was told to stop */
export async function sendFramedBody(options: FramedBodyOptions): Promise<BodyOutcome> {
  const source = new RacingSource(options.source, options.answer);
  const frame = new Frame();
  try {
    let step = await source.next();
    while (step.kind === "chunk") {
      let rest = step.bytes;
      while (rest.length > 0 && !source.isAnswered) {
        rest = rest.subarray(frame.fill(rest));
        if (frame.isFull) await options.send(frame.take());
      }
      step = await source.next();
    }
    if (step.kind === "sent" && frame.length > 0) await options.send(frame.take());
    await options.send(new Uint8Array(HEADER_BYTES));
    return step;
  } finally {
    await source.stop();
  }
}

/** Gathers small chunks into frames, all in one buffer: it is filled again when `send` says that the frame has left. */
class Frame {
  readonly #bytes = Buffer.allocUnsafeSlow(HEADER_BYTES + FRAME_MAX_BYTES);
  length = 0;

  get isFull(): boolean {
    return this.length === FRAME_MAX_BYTES;
  }

  /** @returns how many bytes of `chunk` found room */
  fill(chunk: Uint8Array): number {
    const taken = chunk.subarray(0, FRAME_MAX_BYTES - this.length);
    this.#bytes.set(taken, HEADER_BYTES + this.length);
    this.length += taken.length;
    return taken.length;
  }

  take(): Uint8Array {
    const frame = this.#bytes.subarray(0, HEADER_BYTES + this.length);
    encodeIntInto(frame, 0, this.length);
    this.length = 0;
    return frame;
  }
}

type Step = { readonly kind: "chunk"; readonly bytes: Uint8Array } | BodyOutcome;

/** The source's chunks until it ends, throws, or the answer comes, even while the source is being waited for. */
class RacingSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** "pulling": the source is at work on a chunk. "over": it ended or threw by itself. */
  #state: "idle" | "pulling" | "over" = "idle";
  #wake: (() => void) | null = null;
  isAnswered = false;

  constructor(source: AsyncIterable<Uint8Array>, answer: Promise<unknown>) {
    this.#chunks = source[Symbol.asyncIterator]();
    // Not Promise.race per chunk: that would leave one reaction per chunk on `answer` until it settles.
    const onAnswer = () => {
      this.isAnswered = true;
      this.#wake?.();
    };
    answer.then(onAnswer, onAnswer);
  }

  async next(): Promise<Step> {
    return await new Promise<Step>((resolve) => {
      this.#wake = () => resolve({ kind: "answered-early" });
      if (this.isAnswered) this.#wake();
      else void this.#pull().then(resolve);
    });
  }

  /**
   * Lets a source that is not over clean up. One that is still at work on a chunk does so when that is done, and
   * nobody waits for it: it may be stuck in the network.
   */
  async stop(): Promise<void> {
    if (this.#state === "over") return;
    const stopped = Promise.resolve(this.#chunks.return?.()).catch(() => {
      // The source is no longer wanted; why it cannot end well changes nothing for the caller.
    });
    if (this.#state === "idle") await stopped;
  }

  /** Never rejects. */
  async #pull(): Promise<Step> {
    this.#state = "pulling";
    try {
      const step = await this.#chunks.next();
      this.#state = step.done === true ? "over" : "idle";
      return step.done === true ? { kind: "sent" } : { kind: "chunk", bytes: step.value };
    } catch (error) {
      this.#state = "over";
      return { kind: "source-failed", error };
    }
  }
}
