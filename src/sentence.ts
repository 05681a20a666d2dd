/**
 * How a reason becomes a sentence: a capital letter in front, unless its first word is somebody's name, which is written
 * as its owner writes it, and a full stop at the end. The only place where that is decided. Pure.
 *
 *     the check failed                          The check failed.
 *     switch-to-configuration ended with code 1 switch-to-configuration ended with code 1.
 *     /nix/store/…-nuc is live                  /nix/store/…-nuc is live.
 *     web.service did not start!                web.service did not start!
 */

/** A word that anybody may begin a sentence with. All else is a path, a unit, a program, a flag or a quotation. */
const PLAIN_WORD = /^[a-z]+(['’][a-z]+)?[,;:.!?]*$/;
/** Programs whose names look like plain words. */
const PROGRAM_NAMES: ReadonlySet<string> = new Set(["activate", "bootctl", "nix", "nixdeploy", "systemctl", "systemd"]);

/** @returns "" for "" */
export function formatSentence(text: string): string {
  if (text === "") return "";
  return /[.!?]$/.test(text) ? capitalizeFirst(text) : `${capitalizeFirst(text)}.`;
}

/** Without the full stop: for what goes on. */
export function capitalizeFirst(text: string): string {
  const [word = ""] = text.split(/\s/, 1);
  const isPlain = PLAIN_WORD.test(word) && !PROGRAM_NAMES.has(word.replace(/[^a-z]+$/, ""));
  return isPlain ? `${text.charAt(0).toUpperCase()}${text.slice(1)}` : text;
}
