/**
 * Where Nix's configuration of a user, or of the whole machine, is: nix.conf, and the netrc file with passwords. Reads them,
 * and writes them whole; what they say is `client/nix-conf.ts` and `client/netrc.ts`.
 */
import { access, constants, readFile, readlink, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { ensureDirectory, writeDurableFile } from "../agent/machine/durable-file.ts";
import { describeFileFault, isMissing } from "../agent/machine/system-error.ts";
import { findIncludes, findNetrcFile } from "../client/nix-files/nix-conf.ts";
import { NixdeployError } from "../errors.ts";
import type { Environment } from "./command-line/context.ts";
import { resolveHome } from "./command-line/directories.ts";

export type NixMode = "user" | "system";

const CONF_MODE = 0o644;
const PRIVATE_MODE = 0o600;
const DIRECTORY_MODE = 0o755;

/** As Nix looks for it; the first of NIX_USER_CONF_FILES is the one that counts most. */
export function nixConfPath(mode: NixMode, env: Environment): string {
  if (mode === "system") return join(env["NIX_CONF_DIR"] || "/etc/nix", "nix.conf");
  const [first] = (env["NIX_USER_CONF_FILES"] ?? "").split(":");
  if (first !== undefined && first !== "") return first;
  const configHome = env["XDG_CONFIG_HOME"] ?? "";
  return join(isAbsolute(configHome) ? configHome : join(resolveHome(env), ".config"), "nix", "nix.conf");
}

/** "" without a file. @throws NixdeployError "host" */
export async function readNixFile(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return "";
    throw new NixdeployError("host", `cannot read ${path}: ${describeFileFault(error)}`, { cause: error });
  }
}

/** Files that include each other end somewhere. */
const INCLUDES_MAX = 64;

/**
 * The path in the `netrc-file` line that counts, those of included files too; null without one. Of a nix.conf that holds
 * such a line itself, that one: it may stand behind or before what is included, and is where people look.
 * @throws NixdeployError "host"
 */
export async function readNetrcFile(confPath: string): Promise<string | null> {
  const waiting = [confPath];
  const seen = new Set<string>();
  for (let path = waiting.shift(); path !== undefined && seen.size < INCLUDES_MAX; path = waiting.shift()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const text = await readNixFile(path);
    const named = findNetrcFile(text);
    if (named !== null) return resolve(dirname(path), named);
    const folder = dirname(path);
    waiting.push(...findIncludes(text).map((include) => resolve(folder, include)));
  }
  return null;
}

/** Whether somebody else makes it: NixOS and Home Manager put a link into the store there. */
export async function isMadeByNix(path: string): Promise<boolean> {
  return (await followLink(path)).startsWith("/nix/store/");
}

/** @throws NixdeployError "host", with a hint for who may not */
export async function requireWritable(path: string): Promise<void> {
  const target = await followLink(path);
  for (let place = target; ; place = dirname(place)) {
    try {
      return await access(place, constants.W_OK);
    } catch (error) {
      if (isMissing(error) && place !== dirname(place)) continue;
      throw new NixdeployError("host", `cannot change ${path}: ${describeFileFault(error)}`, {
        hint: "Run it as root for the whole machine, or with --mode user for yourself.",
        cause: error,
      });
    }
  }
}

/** A link is followed; the file keeps owner and mode, and a new one can be read by everyone. @throws NixdeployError "host" */
export async function writeNixConf(path: string, text: string): Promise<void> {
  await write(path, text, (known) => known ?? CONF_MODE);
}

/** Readable by its owner alone from now on, whatever it was. @throws NixdeployError "host" */
export async function writeNetrc(path: string, text: string): Promise<void> {
  await write(path, text, () => PRIVATE_MODE);
}

/** Whether others than its owner may read it. */
export async function isOpenToOthers(path: string): Promise<boolean> {
  return ((await statOrNull(path))?.mode ?? PRIVATE_MODE) % 0o100 !== 0;
}

async function write(path: string, text: string, chooseMode: (known: number | null) => number): Promise<void> {
  try {
    const target = await followLink(path);
    await ensureDirectory(dirname(target), DIRECTORY_MODE);
    const known = await statOrNull(target);
    const mode = chooseMode(known === null ? null : known.mode % 0o1000);
    const isOthers = known !== null && known.uid !== process.getuid?.();
    const owner = isOthers ? { owner: { uid: known.uid, gid: known.gid } } : {};
    await writeDurableFile({ path: target, text, mode, ...owner });
  } catch (error) {
    throw new NixdeployError("host", `cannot write ${path}: ${describeFileFault(error)}`, { cause: error });
  }
}

async function statOrNull(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** One that leads to nothing yet is followed, too: what is written belongs where it leads. */
async function followLink(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    const target = await readlink(path).catch(() => null);
    return target === null ? path : resolve(dirname(path), target);
  }
}
