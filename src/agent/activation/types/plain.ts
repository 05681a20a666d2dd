/**
 * Any other store path: live when the profile names it, and when its hook, if it has one, has said yes.
 *
 *   activate  nix-env --set, the hook
 *   undo      nix-env --set of the previous path, and its hook; a profile that did not exist is removed with its links
 *
 * The hook is an executable file `share/nixdeploy/activate` of the package itself, so it has passed the signature check
 * with the rest of the closure; it is run as the agent's user, without arguments and without a shell. It may be run more
 * than once for the same change.
 *
 *   NIXDEPLOY_NEW_PATH  the store path whose hook it is, which the profile names
 *   NIXDEPLOY_OLD_PATH  the one before; empty when there was none
 *   NIXDEPLOY_PROFILE   absolute path of the profile's link
 */
import { lstat, realpath } from "node:fs/promises";
import { join } from "node:path";
import { type StorePath, storePathContaining } from "../../../nix/store-path.ts";
import { codeOf, describeExit, isSuccess } from "../../machine/program-exit.ts";
import { isMissing } from "../../machine/system-error.ts";
import { findObstacle } from "../obstacles.ts";
import {
  DONE,
  type Driver,
  type DriverDeps,
  removeProfile,
  runLogged,
  type StageEnd,
  setProfile,
  timeForScript,
} from "./driver.ts";
import { describeProgramFault } from "./executable.ts";

const HOOK = "share/nixdeploy/activate";

export function createPlainDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  const { storePath, previous } = record;
  return {
    async check() {
      const reason = (await findObstacle(record)) ?? (await findHookFault(storePath));
      return reason === null ? DONE : { kind: "refused", reason, exitCode: null };
    },
    async activate() {
      const set = await setProfile(storePath, deps);
      if (set.kind !== "good") return set;
      return await runHook(deps, { path: storePath, other: previous.profile, whose: "new" });
    },
    commit: async () => DONE,
    async undo() {
      const { profile } = previous;
      if (profile === null) return await undoFirst(deps);
      const set = await setProfile(profile, deps);
      if (set.kind !== "good") return set;
      return await runHook(deps, { path: profile, other: storePath, whose: "previous" });
    },
    runsNew: async () => (await deps.readProfilePath()) === storePath,
  };
}

/** @returns why the hook cannot be run, a sentence without its full stop, or null */
async function findHookFault(storePath: StorePath): Promise<string | null> {
  const hook = join(storePath, HOOK);
  if (!(await hasHook(storePath))) return null;
  const fault = await describeProgramFault(hook);
  if (fault !== null) return `its hook ${hook} ${fault}`;
  const target = await realpath(hook);
  return storePathContaining(target) === null ? `its hook ${hook} leads out of the store, to ${target}` : null;
}

async function runHook(
  deps: DriverDeps,
  { path, other, whose }: { readonly path: StorePath; readonly other: StorePath | null; readonly whose: string },
): Promise<StageEnd> {
  if (!(await hasHook(path))) return DONE;
  const { record } = deps;
  const environment = {
    ...record.environment,
    NIXDEPLOY_NEW_PATH: path,
    NIXDEPLOY_OLD_PATH: other ?? "",
    NIXDEPLOY_PROFILE: record.profilePath,
  };
  const deadlineMs = timeForScript(record);
  const program = { command: join(path, HOOK), args: [], deadlineMs };
  const exit = await runLogged(program, { ...deps, record: { ...record, environment } });
  if (isSuccess(exit)) return { kind: "good", exitCode: 0 };
  return { kind: "bad", reason: `the hook of the ${whose} version ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

async function undoFirst(deps: DriverDeps): Promise<StageEnd> {
  const removed = await removeProfile(deps);
  if (removed.kind !== "good" || !(await hasHook(deps.record.storePath))) return removed;
  return { ...removed, note: "what its hook did is not taken back, because there is no version before it" };
}

/** A link that leads nowhere is a hook too, and a fault. */
async function hasHook(storePath: StorePath): Promise<boolean> {
  try {
    await lstat(join(storePath, HOOK));
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}
