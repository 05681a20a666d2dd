/**
 * Any other store path: live when the profile names it. There is no boot loader and no script of its own.
 *
 *   activate  nix-env --set
 *   undo      nix-env --set of the previous path; a profile that did not exist is removed with its links
 */
import { type Driver, type DriverDeps, removeProfile, type StageEnd, setProfile } from "./driver.ts";
import { findObstacle } from "./obstacles.ts";

const DONE: StageEnd = { kind: "good", exitCode: null };

export function createPlainDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  return {
    async check() {
      const obstacle = await findObstacle(record);
      return obstacle === null ? DONE : { kind: "refused", reason: obstacle, exitCode: null };
    },
    activate: () => setProfile(record.storePath, deps),
    commit: async () => DONE,
    async undo() {
      const { profile } = record.previous;
      return profile === null ? await removeProfile(deps) : await setProfile(profile, deps);
    },
    runsNew: async () => (await deps.readProfilePath()) === record.storePath,
  };
}
