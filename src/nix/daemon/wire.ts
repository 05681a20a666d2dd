/**
 * The words of the Nix worker protocol: magic numbers, operation codes, limits, and the encoder for what we send.
 * Pure. Reading is in `byte-reader.ts`, because it has to wait.
 *
 *   int    = u64, little endian (every number, bool and enum)
 *   string = int(length) bytes, zero padding to a multiple of 8
 *   list   = int(count) items
 *
 * Source: Nix src/libstore/worker-protocol.hh and src/libutil/serialise.cc, tags 2.8.0 to 2.34.
 */

export const CLIENT_MAGIC = 0x6e697863;
export const SERVER_MAGIC = 0x6478696f;

/** Major version 1 in the upper byte; we speak minors 34 (Nix 2.8) to 38 (Nix 2.24 and newer). */
export const PROTOCOL_MAJOR = 1;
export const PROTOCOL_MINOR_MIN = 34;
export const PROTOCOL_MINOR_MAX = 38;
/** From this minor on both sides exchange lists of feature names. */
export const FEATURES_MINOR = 38;
/** From this minor on the daemon says whether it trusts us. */
export const TRUST_MINOR = 35;

export const operations = {
  addTempRoot: 11,
  addIndirectRoot: 12,
  setOptions: 19,
  queryAllValidPaths: 23,
  queryPathInfo: 26,
  queryValidPaths: 31,
  narFromPath: 38,
  addToStoreNar: 39,
} as const;

/** Messages of the stderr loop, which runs before every reply. */
export const messages = {
  last: 0x616c7473,
  error: 0x63787470,
  next: 0x6f6c6d67,
  startActivity: 0x53545254,
  stopActivity: 0x53544f50,
  result: 0x52534c54,
} as const;

/** A path, hash, signature, version or name. Nix's own paths end at 255 bytes; links may be longer. */
export const TEXT_MAX_BYTES = 64 * 1024;
/** An error message. Nix puts whole build logs' tails into them. */
export const ERROR_TEXT_MAX_BYTES = 4 * 1024 * 1024;
/** A log line, which is skipped, never held. */
export const LOG_TEXT_MAX_BYTES = 256 * 1024 * 1024;
/** References, signatures or features of one thing. */
export const LIST_MAX_LENGTH = 1_000_000;
/** Traces of an error, fields of an activity. */
export const FIELDS_MAX_LENGTH = 100_000;

const INT_BYTES = 8;
const UINT32_RANGE = 2 ** 32;

/** Writes `value` (0 … 2^53-1) as an int at `offset`. */
export function encodeIntInto(target: Uint8Array, offset: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`cannot encode ${value}: not an integer between 0 and 2^53-1`);
  }
  const view = new DataView(target.buffer, target.byteOffset + offset, INT_BYTES);
  view.setUint32(0, value % UINT32_RANGE, true);
  view.setUint32(4, Math.floor(value / UINT32_RANGE), true);
}

/** Collects one request and hands it over as one piece of bytes. */
export class WireEncoder {
  #bytes = new Uint8Array(1024);
  #length = 0;

  int(value: number): this {
    this.#reserve(INT_BYTES);
    encodeIntInto(this.#bytes, this.#length, value);
    this.#length += INT_BYTES;
    return this;
  }

  bool(value: boolean): this {
    return this.int(value ? 1 : 0);
  }

  text(value: string): this {
    const encoded = Buffer.from(value, "utf8");
    const paddedLength = Math.ceil(encoded.length / INT_BYTES) * INT_BYTES;
    this.int(encoded.length);
    this.#reserve(paddedLength);
    this.#bytes.set(encoded, this.#length);
    this.#bytes.fill(0, this.#length + encoded.length, this.#length + paddedLength);
    this.#length += paddedLength;
    return this;
  }

  texts(values: readonly string[]): this {
    this.int(values.length);
    for (const value of values) this.text(value);
    return this;
  }

  /** The bytes so far. The encoder must not be used afterwards. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
