/**
 * Text of others (devices, other coordinators, receivers of webhooks) made fit for a terminal and for a log: what is printed
 * must never move a cursor, clear a screen, set a title, answer for the person at the keyboard, or pretend to be another
 * line. Pure. Whatever the commands print goes through here, where it becomes a line, a table, a failure or JSON.
 *
 *     kept       printing characters, tabs, and colors: ESC "[" {digit | ";"} "m"
 *     goes       every other control character of ASCII and Latin-1 (ESC, CSI as one character, BEL, DEL …), and what turns
 *                the direction of writing around (Unicode's embeddings, overrides and isolates)
 *
 * Source: ECMA-48 §5.3 and §8.3.117 (SGR); UAX #9 §2.
 */
const ESCAPE = "\u001b";
const RESET = `${ESCAPE}[0m`;
const COLOR = `${ESCAPE}\\[[0-9;]*m`;
const OBEYED = "[\\u0000-\\u0008\\u000a-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]";
const COLORS = new RegExp(COLOR, "g");
const COLORS_OR_OBEYED = new RegExp(`${COLOR}|${OBEYED}`, "g");
/** What `JSON.stringify` leaves as it is. */
const OBEYED_IN_JSON = /[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** One line: colors stay and end with it; line breaks go, like everything else that a terminal would obey. */
export function cleanLine(text: string): string {
  const cleaned = text.replace(COLORS_OR_OBEYED, (match) => (match.length > 1 ? match : ""));
  return cleaned.includes(ESCAPE) && !cleaned.endsWith(RESET) ? `${cleaned}${RESET}` : cleaned;
}

/** Several lines, each of them clean. */
export function cleanLines(text: string): string {
  return text.split("\n").map(cleanLine).join("\n");
}

/** One line without colors, for what stands between other things; line breaks and other white space become a blank. */
export function cleanPlain(text: string): string {
  return stripColors(cleanLine(text.replaceAll(/\s+/g, " "))).trim();
}

export function stripColors(text: string): string {
  return text.replace(COLORS, "");
}

/** JSON of the same value, in which nothing stands that a terminal obeys. @param indent blanks for each depth; 0: one line */
export function formatJson(value: unknown, indent = 0): string {
  const escapeOne = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value, null, indent).replaceAll(OBEYED_IN_JSON, escapeOne);
}
