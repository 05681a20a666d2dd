/**
 * Base64 as Nix writes it (RFC 4648 §4, padded), read strictly: each byte string has one spelling.
 *
 * `Buffer.from(text, "base64")` alone skips foreign characters and accepts cut-off input; here both are errors.
 */
import { Buffer } from "node:buffer";
import { NixParseError } from "./parse-error.ts";

export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/**
 * The bytes that `text` spells, which must be `byteLength` many.
 * @throws NixParseError on any other length, foreign characters, missing padding or stray bits. The text is not
 *   repeated in the message: it may be a secret key.
 */
export function decodeBase64(text: string, byteLength: number): Uint8Array {
  const length = Math.ceil(byteLength / 3) * 4;
  if (text.length !== length) {
    throw new NixParseError("base64 text", `${text.length} characters instead of ${length}`);
  }
  const bytes = Buffer.from(text, "base64");
  if (bytes.length !== byteLength || bytes.toString("base64") !== text) {
    throw new NixParseError("base64 text", `not the canonical spelling of ${byteLength} bytes`);
  }
  return new Uint8Array(bytes);
}
