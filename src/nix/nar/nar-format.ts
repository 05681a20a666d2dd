/**
 * What reader and writer of NARs agree on: the limits, the rules for names and targets, the padding.
 *
 *   nar  = str("nix-archive-1") node
 *   node = str("(") str("type")
 *          ( str("regular") [ str("executable") str("") ] str("contents") str(bytes)
 *          | str("symlink") str("target") str(target)
 *          | str("directory") { str("entry") str("(") str("name") str(name) str("node") node str(")") } )
 *          str(")")
 *   str(s) = u64 little endian length, the bytes, zero bytes up to a multiple of 8
 *
 * The root may be of any type. Entries come in strictly increasing order of their names' bytes.
 *
 * Names and targets are bytes, not UTF-8. Everywhere in this program they are strings with one character per byte
 * (latin1): nothing is lost, and comparing two of them compares their bytes. To show one, decode it:
 * `Buffer.from(name, "latin1").toString("utf8")`.
 *
 * Names that differ only in case, or in how Unicode composes a letter, are different names and accepted, as by Nix: a
 * store knows no case. Where the file system does (macOS), the daemon renames on import and undoes it when it reads
 * ("case hack"), so neither the reader here nor the agent has to know.
 *
 * Source: Nix `src/libutil/archive.cc`; the limits are those of Nix 2.35. Older versions of Nix neither check the
 * order nor refuse duplicates, which is why nobody should be handed a NAR that was not checked.
 */

/** Bytes of a directory entry's name: 1 to this. */
export const NAR_NAME_LENGTH_MAX = 255;
/** Bytes of a symlink's target: 1 to this. */
export const NAR_TARGET_LENGTH_MAX = 4095;
/** Bytes of a keyword; the longest real one has 13. */
export const NAR_KEYWORD_LENGTH_MAX = 32;
/** A node with this many directories above it is refused. */
export const NAR_DEPTH_MAX = 64;

/** Bytes of zeros behind `length` bytes. */
export function narPaddingLength(length: number): number {
  return (8 - (length % 8)) % 8;
}

/** Why these bytes (latin1) cannot name a directory entry; null when they can. */
export function describeNarNameFault(name: string): string | null {
  if (name === "" || name === "." || name === "..") {
    return "a name may not be empty, . or ..";
  }
  if (name.length > NAR_NAME_LENGTH_MAX) {
    return `a name has more than ${NAR_NAME_LENGTH_MAX} bytes`;
  }
  return name.includes("/") || name.includes("\0") ? "a name may not contain a slash or NUL" : null;
}

/** Why these bytes (latin1) cannot be a symlink's target; null when they can. */
export function describeNarTargetFault(target: string): string | null {
  if (target.length === 0 || target.length > NAR_TARGET_LENGTH_MAX) {
    return `a symlink target has ${target.length} bytes instead of 1 to ${NAR_TARGET_LENGTH_MAX}`;
  }
  return target.includes("\0") ? "a symlink target may not contain NUL" : null;
}
