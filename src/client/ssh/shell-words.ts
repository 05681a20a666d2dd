/**
 * Command lines for a remote shell: the ssh program joins its words with spaces and hands them to the user's login shell,
 * whatever that is. So what that shell reads is plain in any: letters, digits and octal numbers between single quotes, which
 * `sh` decodes and runs. csh takes no line ends and no `!` even between quotes, and fish reads backslashes there. Pure.
 */

/** What only says itself between single quotes, in every shell, and in `printf %b`. */
const PLAIN = /[^A-Za-z0-9_./:@%+,= -]/gu;

/** For POSIX shells. */
export function quoteShellWord(word: string): string {
  return /^[A-Za-z0-9_./:@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** What `ssh HOST …` is given so that the program is run with exactly these words. */
export function remoteCommand(words: readonly string[]): string {
  const line = `exec ${words.map(quoteShellWord).join(" ")}`;
  return `exec sh -c 'eval "$(printf %b "$0")"' '${line.replace(PLAIN, toOctal)}'`;
}

function toOctal(character: string): string {
  return [...Buffer.from(character)].map((byte) => `\\0${byte.toString(8).padStart(3, "0")}`).join("");
}

/**
 * Begins every script: a login by ssh runs no profile files, and Nix is often found only by those. HOME may be missing
 * under sudo.
 */
export const SCRIPT_START = `PATH="$PATH:/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:\${HOME:-/}/.nix-profile/bin:\${HOME:-/}/.local/state/nix/profiles/profile/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export PATH
`;
