/**
 * The coordinators that somebody has logged in to (`nixdeploy login`): their addresses and tokens, and which of them is
 * meant when nothing else says so. One file, `$XDG_CONFIG_HOME/nixdeploy/logins.json`, for its owner's eyes only.
 *
 * Flags and environment come first (coordinator-access.ts). A token is sent to the address that it was saved with, and to
 * no other.
 */
import { readFile, realpath, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { z } from "zod";
import { writeDurableFile } from "../agent/machine/durable-file.ts";
import { tryLockFile } from "../agent/machine/flock.ts";
import { describeFileFault, isMissing } from "../agent/machine/system-error.ts";
import { NixdeployError } from "../errors.ts";
import type { CommandContext, Environment } from "./command-line/context.ts";
import { resolveHome } from "./command-line/directories.ts";

const loginSchema = z.object({ url: z.string(), token: z.string(), savedAt: z.string() });
const loginsSchema = z.object({ version: z.literal(1), current: z.string().nullable(), logins: z.array(loginSchema) });

export type Login = z.output<typeof loginSchema>;
export type Logins = {
  /** The address of the one that is meant; null: none is. */
  readonly current: string | null;
  readonly logins: readonly Login[];
};

export const NO_LOGINS: Logins = { current: null, logins: [] };

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;
const OTHERS_MAY = 0o077;

/** With this one, in the place of an older one for the same address; it is the current one from now on. */
export function withLogin({ logins }: Logins, login: Login): Logins {
  const others = logins.filter(({ url }) => url !== login.url);
  return { current: login.url, logins: [...others, login].sort((left, right) => (left.url < right.url ? -1 : 1)) };
}

/** Without it. When it was the current one, and one other is left, that one is; of several, none. */
export function withoutLogin({ current, logins }: Logins, url: string): Logins {
  const left = logins.filter((login) => login.url !== url);
  const [only] = left;
  if (current !== url) return { current, logins: left };
  return { current: left.length === 1 && only !== undefined ? only.url : null, logins: left };
}

export function loginsFile(env: Environment): string {
  const configHome = env["XDG_CONFIG_HOME"] ?? "";
  // A relative one counts as not set: that is how the XDG specification has it.
  const base = isAbsolute(configHome) ? configHome : join(resolveHome(env), ".config");
  return join(base, "nixdeploy", "logins.json");
}

/** {@link NO_LOGINS} without a file. @throws NixdeployError "host" when it cannot be read, is damaged, or others may read it */
export async function loadLogins(env: Environment): Promise<Logins> {
  const file = loginsFile(env);
  try {
    const { mode } = await stat(file);
    if ((mode & OTHERS_MAY) !== 0) {
      throw new NixdeployError("host", `cannot use the logins in ${file}: other users may read it`, {
        hint: `Run: chmod 600 ${file}`,
      });
    }
    const { current, logins } = loginsSchema.parse(JSON.parse(await readFile(file, "utf8")));
    return { current, logins };
  } catch (error) {
    if (isMissing(error)) return NO_LOGINS;
    if (error instanceof NixdeployError) throw error;
    throw new NixdeployError("host", `cannot read the logins in ${file}: ${describeFileFault(error)}`, {
      hint: "Correct it, or remove it and log in again.",
      cause: error,
    });
  }
}

/** How long another command may take to change them. */
const TURN_MAX_MS = 10_000;
const TURN_LOOK_MS = 20;

/**
 * Changes them as they are now, while no other command does; whole or not at all. A file that is a link stays one.
 * @returns what is saved. @throws NixdeployError "host" · what `change` throws, with nothing changed · the signal's reason
 */
export async function changeLogins(
  { env, clock, signal }: Pick<CommandContext, "env" | "clock" | "signal">,
  change: (logins: Logins) => Logins,
): Promise<Logins> {
  const path = loginsFile(env);
  const untilMs = clock.monotonicMs() + TURN_MAX_MS;
  for (;;) {
    using turn = takeTurn(path);
    if (turn !== null) {
      const logins = change(await loadLogins(env));
      await write(path, logins);
      return logins;
    }
    if (clock.monotonicMs() >= untilMs) throw cannotSave(path, "another command is changing them");
    await clock.sleep(TURN_LOOK_MS, signal);
  }
}

function takeTurn(path: string): Disposable | null {
  try {
    return tryLockFile(`${path}.lock`, DIRECTORY_MODE);
  } catch (error) {
    const cause = error instanceof NixdeployError ? error.cause : error;
    throw cannotSave(path, describeFileFault(cause), cause);
  }
}

async function write(path: string, logins: Logins): Promise<void> {
  try {
    const target = await realpath(path).catch(() => path);
    const text = `${JSON.stringify({ version: 1, ...logins }, null, 2)}\n`;
    await writeDurableFile({ path: target, text, mode: FILE_MODE });
  } catch (cause) {
    throw cannotSave(path, describeFileFault(cause), cause);
  }
}

function cannotSave(path: string, why: string, cause?: unknown): NixdeployError {
  return new NixdeployError("host", `cannot save the logins in ${path}: ${why}`, { cause });
}
