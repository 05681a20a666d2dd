/**
 * Any other store path: live when the profile names it. There is no boot loader and no script of its own.
 *
 *   activate  nix-env --set
 *   undo      nix-env --set of the previous path; a profile that did not exist is removed with its links
 */
import { readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { parseGenerationLink } from "../../nix/profile.ts";
import { type Driver, type DriverDeps, type StageEnd, setProfile } from "./driver.ts";

const DONE: StageEnd = { kind: "good", exitCode: null };

export function createPlainDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  return {
    check: async () => DONE,
    activate: () => setProfile(record.storePath, deps),
    commit: async () => DONE,
    async undo() {
      if (record.previous.profile !== null) return await setProfile(record.previous.profile, deps);
      await removeProfile(record.profilePath);
      if ((await deps.readProfilePath()) === null) return DONE;
      return { kind: "bad", reason: `the profile ${record.profilePath} could not be removed`, exitCode: null };
    },
    runsNew: async () => (await deps.readProfilePath()) === record.storePath,
  };
}

/** The link and its generations, which this activation made. */
async function removeProfile(profilePath: string): Promise<void> {
  await rm(profilePath, { force: true });
  const directory = dirname(profilePath);
  for (const name of await readdir(directory)) {
    if (parseGenerationLink(name)?.profile === basename(profilePath)) await rm(join(directory, name), { force: true });
  }
}
