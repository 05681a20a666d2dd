/**
 * Where Home Manager keeps what it knows, for the user whom an environment describes. Reads, changes nothing.
 *
 * Sources: home-manager `modules/lib-bash/activation-init.sh` (setupVars, migrateProfile), which this follows name by
 * name.
 */
import { existsSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import type { StorePath } from "../../nix/store-path.ts";
import { readStoreLink } from "./profile-link.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export type HomePlaces = {
  readonly home: string;
  /** Garbage-collector root of the generation that is live: a script that has done its work sets it. */
  readonly currentRoot: string;
  /** Root of the generation that a script is at work for. */
  readonly newRoot: string;
  /** The profile that generations of the older protocol set themselves. */
  readonly ownProfile: string;
  /** A profile at a place of former times, which the script would move; null when there is none. */
  readonly profileToMove: string | null;
};

export function findHomePlaces(environment: Environment): HomePlaces {
  const home = environment["HOME"] ?? userInfo().homedir;
  const stateHome = environment["XDG_STATE_HOME"] ?? join(home, ".local/state");
  const user = environment["USER"] ?? userInfo().username;
  const roots = join(stateHome, "home-manager/gcroots");
  const userProfiles = join(stateHome, "nix/profiles");
  const globalProfiles = join(environment["NIX_STATE_DIR"] ?? "/nix/var/nix", "profiles/per-user", user);
  const hasUserProfiles = isDirectory(userProfiles);
  const formerProfiles = [globalProfiles, join(stateHome, "home-manager/profiles")];
  const former = formerProfiles.map((directory) => join(directory, PROFILE)).find((path) => existsSync(path));
  return {
    home,
    currentRoot: join(roots, "current-home"),
    newRoot: join(roots, "new-home"),
    ownProfile: join(hasUserProfiles ? userProfiles : globalProfiles, PROFILE),
    profileToMove: hasUserProfiles ? (former ?? null) : null,
  };
}

/** The generation that is live in this home; null when there is none. */
export async function readCurrentHome(environment: Environment): Promise<StorePath | null> {
  return await readStoreLink(findHomePlaces(environment).currentRoot);
}

const PROFILE = "home-manager";

/**
 * What a login would have set and a service may lack: Home Manager's script insists on the first two. Without the switch of
 * its dry runs, which would end a real one well, with nothing done.
 */
export function completeHomeEnvironment(environment: Readonly<Record<string, string>>): Record<string, string> {
  const { DRY_RUN: _dryRun, ...rest } = environment;
  const complete: Record<string, string> = { ...rest };
  complete["HOME"] ??= userInfo().homedir;
  complete["USER"] ??= userInfo().username;
  const runtime = complete["XDG_RUNTIME_DIR"] ?? `/run/user/${process.getuid?.()}`;
  if (isDirectory(runtime)) {
    complete["XDG_RUNTIME_DIR"] = runtime;
    const bus = join(runtime, "bus");
    if (complete["DBUS_SESSION_BUS_ADDRESS"] === undefined && existsSync(bus)) {
      complete["DBUS_SESSION_BUS_ADDRESS"] = `unix:path=${bus}`;
    }
  }
  return complete;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
