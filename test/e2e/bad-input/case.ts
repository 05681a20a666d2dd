/**
 * One row of the tables of bad input: what is typed, where and with what around it, and what the answer must be.
 *
 * In every text `{name}` stands for a value of the world (world.ts), `{new}` for a directory of this row alone.
 */
import type { World } from "./world.ts";

/** As a shell would take it apart: words without spaces, or a list of words. */
export type CommandLine = string | readonly string[];

export type BadInput = {
  /** What is wrong, for the name of the test. */
  readonly what: string;
  /** After `nixdeploy`. */
  readonly command: CommandLine;
  /** Set for this run; null takes one away that is there by default: NIXDEPLOY_URL and NIXDEPLOY_TOKEN (an admin's). */
  readonly env?: Readonly<Record<string, string | null>>;
  /** Standard input; default: nothing to read. */
  readonly stdin?: string;
  /** Put before the command: another user, another clock, closed streams. */
  readonly through?: keyof typeof WRAPPERS;
  /** Done before. */
  readonly prepare?: (world: World, directory: string) => Promise<unknown>;
  readonly exitCode: 1 | 2 | 75 | 77;
  /** Part of the one line that begins with "nixdeploy: ". */
  readonly says: string;
  /** Part of what stands below it: details and hint. */
  readonly hint?: string;
};

const NOBODY = "65534";

/** Commands that run the command that follows. */
export const WRAPPERS = {
  "another user": ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  "20 years later": ["faketime", "--exclude-monotonic", "-f", "+20y"],
  "20 years earlier": ["faketime", "--exclude-monotonic", "-f", "-20y"],
  "standard input closed": ["sh", "-c", 'exec "$@" <&-', "sh"],
  "standard input is a directory": ["sh", "-c", 'exec "$@" </', "sh"],
  "standard output on a full disk": ["sh", "-c", 'exec "$@" >/dev/full', "sh"],
  "HOME unset": ["env", "-u", "HOME", "-u", "XDG_STATE_HOME"],
  "HOME unset, another user": [
    ...["env", "-u", "HOME", "-u", "XDG_STATE_HOME"],
    ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  ],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export function splitCommand(command: CommandLine): readonly string[] {
  return typeof command === "string" ? command.split(" ") : command;
}
