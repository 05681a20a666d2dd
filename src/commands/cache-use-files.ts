/** The two files of Nix that `nixdeploy cache use` changes, read together and written together. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { NixdeployError } from "../errors.ts";
import type { CommandContext } from "./command-line/context.ts";
import {
  isOpenToOthers,
  type NixMode,
  nixConfPath,
  readNetrcFile,
  readNixFile,
  writeNetrc,
  writeNixConf,
} from "./nix-files.ts";

export type Files = {
  readonly mode: NixMode;
  readonly confPath: string;
  readonly conf: string;
  readonly netrcPath: string;
  readonly netrc: string;
  /** Whether nix.conf must say where the netrc file is, because Nix would look elsewhere. */
  readonly isNetrcNamed: boolean;
};

export async function openFiles({ env }: Pick<CommandContext, "env">, mode: NixMode): Promise<Files> {
  const confPath = nixConfPath(mode, env);
  const conf = await readNixFile(confPath);
  const named = await readNetrcFile(confPath);
  const netrcPath = named ?? join(dirname(confPath), "netrc");
  // Nix looks beside the machine's nix.conf by itself, and never beside a user's.
  return {
    mode,
    confPath,
    conf,
    netrcPath,
    netrc: await readNixFile(netrcPath),
    isNetrcNamed: named === null && mode === "user",
  };
}

export type NewFiles = Pick<Files, "conf" | "netrc"> & {
  /** A token of ours is in the netrc file: nobody else may read it, even where nothing else changes. */
  readonly holdsToken: boolean;
};

/** @returns the files that are others now. @throws NixdeployError "conflict" when somebody has changed one meanwhile · "host" */
export async function saveFiles(files: Files, { conf, netrc, holdsToken }: NewFiles): Promise<readonly string[]> {
  const changed: string[] = [];
  await requireUnchanged(files.netrcPath, files.netrc);
  await requireUnchanged(files.confPath, files.conf);
  // The token first: Nix is not to ask before it has one.
  if (netrc !== files.netrc || (holdsToken && (await isOpenToOthers(files.netrcPath)))) {
    await writeNetrc(files.netrcPath, netrc);
    changed.push(files.netrcPath);
  }
  if (conf !== files.conf) {
    await writeNixConf(files.confPath, conf);
    changed.push(files.confPath);
  }
  return changed;
}

/** The coordinator was asked since they were read, and that may take a while. */
async function requireUnchanged(path: string, text: string): Promise<void> {
  if ((await readNixFile(path)) === text) return;
  throw new NixdeployError("conflict", `cannot change ${path}: somebody else has changed it meanwhile`, {
    hint: "Nothing was written. Run the same command again.",
  });
}

/** A daemon reads its configuration when it starts. */
export function sayRestart({ log }: CommandContext, mode: NixMode): void {
  if (mode === "user") return;
  if (process.platform === "darwin")
    log.info("restart the Nix daemon: launchctl kickstart -k system/org.nixos.nix-daemon");
  else if (existsSync("/run/systemd/system")) log.info("restart the Nix daemon: systemctl restart nix-daemon");
  else log.info("restart the Nix daemon, if one runs: it read its configuration when it started");
}
