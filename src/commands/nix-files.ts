/**
 * Where Nix's configuration of a user, or of the whole machine, is: nix.conf, and the netrc file with passwords. Reads them,
 * and writes them whole; what they say is `client/nix-conf.ts` and `client/netrc.ts`.
 */
import { access, constants, readFile, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { ensureDirectory, writeDurableFile } from "../agent/machine/durable-file.ts";
import { describeFileFault, isMissing } from "../agent/machine/system-error.ts";
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

/** A link is followed; the file keeps its mode, and a new one can be read by everyone. @throws NixdeployError "host" */
export async function writeNixConf(path: string, text: string): Promise<void> {
  await write(path, text, (known) => known ?? CONF_MODE);
}

/** Readable by its owner alone from now on, whatever it was. @throws NixdeployError "host" */
export async function writeNetrc(path: string, text: string): Promise<void> {
  await write(path, text, () => PRIVATE_MODE);
}

/** Whether others than its owner may read it. */
export async function isOpenToOthers(path: string): Promise<boolean> {
  return ((await modeOf(path)) ?? PRIVATE_MODE) % 0o100 !== 0;
}

async function write(path: string, text: string, chooseMode: (known: number | null) => number): Promise<void> {
  try {
    const target = await followLink(path);
    await ensureDirectory(dirname(target), DIRECTORY_MODE);
    await writeDurableFile({ path: target, text, mode: chooseMode(await modeOf(target)) });
  } catch (error) {
    throw new NixdeployError("host", `cannot write ${path}: ${describeFileFault(error)}`, { cause: error });
  }
}

async function modeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mode % 0o1000;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function followLink(path: string): Promise<string> {
  return await realpath(path).catch(() => path);
}
