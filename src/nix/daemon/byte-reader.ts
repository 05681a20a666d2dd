/**
 * Reads the words of the worker protocol from a source of chunks, however they are split. Pull-driven: asks for the
 * next chunk only when the last one is used up. Lengths are compared with a limit before anything is allocated.
 * Knows nothing about messages or operations.
 */
import { ConnectionLostError, ProtocolError } from "./daemon-error.ts";

const INT_BYTES = 8;
const UINT32_RANGE = 2 ** 32;
const EMPTY = new Uint8Array(0);

export class ByteReader {
  readonly #pull: () => Promise<Uint8Array | null>;
  #chunk: Uint8Array = EMPTY;

  /** @param pull the next chunk, or null at the end of the stream */
  constructor(pull: () => Promise<Uint8Array | null>) {
    this.#pull = pull;
  }

  /** @throws ProtocolError above 2^53-1 · ConnectionLostError at the end of the stream */
  async readInt(): Promise<number> {
    let bytes: Uint8Array;
    if (this.#chunk.length >= INT_BYTES) {
      bytes = this.#chunk;
      this.#chunk = this.#chunk.subarray(INT_BYTES);
    } else {
      bytes = await this.#readBytes(INT_BYTES);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, INT_BYTES);
    const value = view.getUint32(4, true) * UINT32_RANGE + view.getUint32(0, true);
    if (!Number.isSafeInteger(value)) throw new ProtocolError(`a number above 2^53 where a small one belongs`);
    return value;
  }

  async readBool(): Promise<boolean> {
    return (await this.readInt()) !== 0;
  }

  /** @throws ProtocolError longer than `maxBytes`, or padding that is not zero */
  async readText(maxBytes: number): Promise<string> {
    const length = await this.#readLength(maxBytes);
    const bytes = await this.#readBytes(length);
    await this.#readPadding(length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  }

  /** Passes over a string without holding it. */
  async skipText(maxBytes: number): Promise<void> {
    const length = await this.#readLength(maxBytes);
    let left = length;
    while (left > 0) left -= (await this.#take(left)).length;
    await this.#readPadding(length);
  }

  async readTexts(limits: { readonly maxLength: number; readonly textMaxBytes: number }): Promise<string[]> {
    const count = await this.readCount(limits.maxLength);
    const texts: string[] = [];
    for (let index = 0; index < count; index++) texts.push(await this.readText(limits.textMaxBytes));
    return texts;
  }

  /** The number of items of a list. */
  async readCount(maxLength: number): Promise<number> {
    const count = await this.readInt();
    if (count > maxLength) throw new ProtocolError(`a list of ${count} items, more than ${maxLength}`);
    return count;
  }

  /** Whatever bytes come next, at least one, in the size they arrived. */
  async readSome(): Promise<Uint8Array> {
    return await this.#take(Number.MAX_SAFE_INTEGER);
  }

  /** Puts back the unused end of what `readSome` gave. */
  unread(rest: Uint8Array): void {
    if (this.#chunk.length > 0) throw new RangeError("cannot put bytes back: others were read since");
    this.#chunk = rest;
  }

  async #readLength(maxBytes: number): Promise<number> {
    const length = await this.readInt();
    if (length > maxBytes) throw new ProtocolError(`a string of ${length} bytes, more than ${maxBytes}`);
    return length;
  }

  async #readPadding(length: number): Promise<void> {
    const count = (INT_BYTES - (length % INT_BYTES)) % INT_BYTES;
    if (count === 0) return;
    const padding = await this.#readBytes(count);
    if (padding.some((byte) => byte !== 0)) throw new ProtocolError("padding that is not zero");
  }

  async #readBytes(count: number): Promise<Uint8Array> {
    if (count === 0) return EMPTY;
    const first = await this.#take(count);
    if (first.length === count) return first;
    const bytes = new Uint8Array(count);
    bytes.set(first);
    let filled = first.length;
    while (filled < count) {
      const part = await this.#take(count - filled);
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  /** Between 1 and `maxCount` bytes. */
  async #take(maxCount: number): Promise<Uint8Array> {
    while (this.#chunk.length === 0) {
      const chunk = await this.#pull();
      if (chunk === null) throw new ConnectionLostError("the daemon closed the connection");
      this.#chunk = chunk;
    }
    const taken = this.#chunk.subarray(0, maxCount);
    this.#chunk = this.#chunk.subarray(taken.length);
    return taken;
  }
}
