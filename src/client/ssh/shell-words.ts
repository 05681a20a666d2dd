/**
 * Command lines for a remote shell: the ssh program joins its words with spaces and hands them to the user's login shell,
 * whatever that is, so every word of ours is quoted, and what is done is said to `sh` in a script that never changes.
 * Pure.
 */

/** For any shell in which '…' is literal: POSIX shells, zsh, fish. */
export function quoteShellWord(word: string): string {
  return /^[A-Za-z0-9_./:@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** What `ssh HOST …` is given so that `sh` runs `script` with `$1`, `$2`, … */
export function remoteCommand(words: readonly string[]): string {
  return `exec ${words.map(quoteShellWord).join(" ")}`;
}

/**
 * Begins every script: a login by ssh runs no profile files, and Nix is often found only by those. HOME may be missing
 * under sudo.
 */
export const SCRIPT_START = `PATH="$PATH:/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:\${HOME:-/}/.nix-profile/bin:\${HOME:-/}/.local/state/nix/profiles/profile/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export PATH
`;
