/**
 * The one error that every format parser of this folder throws: which format, what was wrong, and where.
 *
 * It knows nothing of exit codes or HTTP: whoever reads from disk or network turns it into a `NixdeployError`.
 */

/** More of a refused text than this is never repeated in a message. */
const EXCERPT_LENGTH_MAX = 80;

export type NixParseErrorOptions = {
  /** The key or part at fault, for example `NarHash`. */
  readonly field?: string;
  /** Bytes from the start of the input at which the fault was noticed. */
  readonly offset?: number;
  readonly cause?: unknown;
};

/** Input that is not what its format allows. `message` is "cannot parse <format>: <field>: <reason>". */
export class NixParseError extends Error {
  override readonly name = "NixParseError";
  /** For a person: "narinfo", "store path", "NAR". */
  readonly format: string;
  readonly reason: string;
  readonly field: string | undefined;
  readonly offset: number | undefined;

  constructor(format: string, reason: string, options: NixParseErrorOptions = {}) {
    const field = options.field === undefined ? "" : `${options.field}: `;
    const offset = options.offset === undefined ? "" : ` (at byte ${options.offset})`;
    super(
      `cannot parse ${format}: ${field}${reason}${offset}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.format = format;
    this.reason = reason;
    this.field = options.field;
    this.offset = options.offset;
  }
}

/** What JSON leaves as it is and a terminal obeys: control characters of Latin-1, line ends, changes of direction. */
const INVISIBLE = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Untrusted text made fit for one line of an error message: quoted, control characters escaped, shortened. */
export function quoteExcerpt(text: string): string {
  const isLong = text.length > EXCERPT_LENGTH_MAX;
  const quoted = JSON.stringify(isLong ? `${text.slice(0, EXCERPT_LENGTH_MAX)}…` : text);
  return quoted.replaceAll(INVISIBLE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
