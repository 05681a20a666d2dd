/**
 * Reads a NAR from chunks of any size, without I/O and without ever holding a file's contents.
 *
 * This file cuts the stream into strings (length, bytes, zero padding); nar-grammar.ts says which may come. Contents are
 * passed on as views of the chunks they came in. Held over between chunks: at most one name or symlink target.
 * Neither hash nor size of the whole is judged here: count and hash the same chunks beside it.
 */
import { Buffer } from "node:buffer";
import { NixParseError } from "../parse-error.ts";
import { NAR_TARGET_LENGTH_MAX, narPaddingLength } from "./nar-format.ts";
import { NarGrammar, type NarHandler } from "./nar-grammar.ts";

export type NarReader = {
  /**
   * Takes the next bytes of the stream and reports what they contain to the handler.
   * @returns how many bytes belonged to the NAR: less than `chunk.length` only when it ended inside this chunk
   * @throws NixParseError at the first string that cannot be part of a NAR; the reader then throws the same at every
   *   later call. Also whatever the handler throws, with the same effect.
   */
  push(chunk: Uint8Array): number;
  /** The last byte of the NAR has been seen. */
  readonly ended: boolean;
  /** Bytes taken so far; when `ended`, the size of the NAR. */
  readonly narSizeBytes: number;
  /** @throws NixParseError when the NAR is not complete, or whatever ended the reading before */
  finish(): void;
};

export function createNarReader(handler: Partial<NarHandler> = {}): NarReader {
  return new StreamingNarReader(handler);
}

/** What the next byte belongs to. */
type Section = "length" | "text" | "body" | "body-padding";

const LENGTH_BYTES = 8;
/** High half of the first u64 that is no safe integer. */
const LENGTH_HIGH_MAX = 2 ** 21;

class StreamingNarReader implements NarReader {
  narSizeBytes = 0;
  private readonly handler: Partial<NarHandler>;
  private readonly grammar: NarGrammar;
  private failure: { readonly cause: unknown } | null = null;

  private section: Section = "length";
  /** Bytes that the section still wants: of the body what is to come, otherwise its full length with padding. */
  private wantedBytes = LENGTH_BYTES;
  /** Bytes of the text without padding. */
  private textLength = 0;
  /** Padding behind the body. */
  private bodyPaddingLength = 0;

  /** The beginning of a section that a chunk's end cut off. */
  private readonly held = Buffer.alloc(NAR_TARGET_LENGTH_MAX + LENGTH_BYTES);
  private heldBytes = 0;
  /** Where the section that `take` found complete lies. */
  private source: Buffer = this.held;
  private sourceStart = 0;

  constructor(handler: Partial<NarHandler>) {
    this.handler = handler;
    this.grammar = new NarGrammar(handler);
  }

  get ended(): boolean {
    return this.grammar.ended;
  }

  push(chunk: Uint8Array): number {
    this.rethrowFailure();
    try {
      return this.consume(chunk);
    } catch (error) {
      this.failure = { cause: error };
      throw error;
    }
  }

  finish(): void {
    this.rethrowFailure();
    if (!this.ended) {
      throw new NixParseError("NAR", "the input ends before the NAR does", { offset: this.narSizeBytes });
    }
  }

  private rethrowFailure(): void {
    if (this.failure !== null) {
      throw this.failure.cause;
    }
  }

  private consume(chunk: Uint8Array): number {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let position = 0;
    while (position < bytes.length && !this.grammar.ended) {
      const taken = this.section === "body" ? this.passBody(chunk, position) : this.take(bytes, position);
      position += taken;
      this.narSizeBytes += taken;
      if (this.wantedBytes === 0) {
        this.endSection();
      }
    }
    return position;
  }

  private passBody(chunk: Uint8Array, position: number): number {
    const taken = Math.min(this.wantedBytes, chunk.length - position);
    this.handler.data?.(taken === chunk.length ? chunk : chunk.subarray(position, position + taken));
    this.wantedBytes -= taken;
    return taken;
  }

  /** Takes what is there of the section; `wantedBytes` is 0 afterwards when `source` holds all of it. */
  private take(bytes: Buffer, position: number): number {
    const available = bytes.length - position;
    if (this.heldBytes === 0 && available >= this.wantedBytes) {
      const taken = this.wantedBytes;
      this.source = bytes;
      this.sourceStart = position;
      this.wantedBytes = 0;
      return taken;
    }
    const taken = Math.min(this.wantedBytes, available);
    bytes.copy(this.held, this.heldBytes, position, position + taken);
    this.heldBytes += taken;
    this.wantedBytes -= taken;
    this.source = this.held;
    this.sourceStart = 0;
    return taken;
  }

  private endSection(): void {
    this.heldBytes = 0;
    switch (this.section) {
      case "length":
        this.endLength();
        break;
      case "text":
        this.endText();
        break;
      case "body":
        this.begin("body-padding", this.bodyPaddingLength);
        break;
      case "body-padding":
        this.checkZeros(this.sourceStart, this.sourceStart + this.bodyPaddingLength);
        this.grammar.endBody();
        this.begin("length", LENGTH_BYTES);
        break;
      default:
        this.section satisfies never;
    }
  }

  /** A section of no bytes ends at once: no byte of its own would come to end it. */
  private begin(section: Section, wantedBytes: number): void {
    this.section = section;
    this.wantedBytes = wantedBytes;
    if (wantedBytes === 0) {
      this.endSection();
    }
  }

  private endLength(): void {
    const high = this.source.readUInt32LE(this.sourceStart + 4);
    const length = high * 2 ** 32 + this.source.readUInt32LE(this.sourceStart);
    const offset = this.narSizeBytes - LENGTH_BYTES;
    if (this.grammar.wantsBody) {
      if (high >= LENGTH_HIGH_MAX) {
        throw new NixParseError("NAR", "a file has more than 2^53 bytes", { offset });
      }
      this.bodyPaddingLength = narPaddingLength(length);
      this.grammar.acceptBody(length, this.narSizeBytes);
      this.begin("body", length);
      return;
    }
    if (length > this.grammar.textLengthMax) {
      const reason = `a string of ${length} bytes where at most ${this.grammar.textLengthMax} can be`;
      throw new NixParseError("NAR", reason, { offset });
    }
    this.textLength = length;
    this.begin("text", length + narPaddingLength(length));
  }

  private endText(): void {
    const end = this.sourceStart + this.textLength;
    const paddingLength = narPaddingLength(this.textLength);
    this.checkZeros(end, end + paddingLength);
    const text = this.source.toString("latin1", this.sourceStart, end);
    this.grammar.acceptText(text, this.narSizeBytes - this.textLength - paddingLength);
    this.begin("length", LENGTH_BYTES);
  }

  private checkZeros(start: number, end: number): void {
    for (let index = start; index < end; index += 1) {
      if (this.source[index] !== 0) {
        throw new NixParseError("NAR", "padding that is not zero", { offset: this.narSizeBytes - (end - index) });
      }
    }
  }
}
