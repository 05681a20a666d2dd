/**
 * nix-darwin: the system's own script does everything but the profile, which follows the proof.
 *
 *   check     the script. There is no dry run: `activate` clears its environment (`env -i`), and with it the
 *             only switch it has (`checkActivation`), so dry-activate runs nothing
 *   activate  PATH/activate-user, where it is one; PATH/activate
 *   commit    nix-env --set
 *   undo      the previous profile, if it was touched; the previous system's scripts
 *
 * /run/current-system is the script's last step, and at boot it is what the profile names. A script cleans up after the
 * system that it finds there, so an undo first makes it name the new one if it does not: what a script that was
 * interrupted half-way, or the boot after it, has left behind would else stay.
 *
 * Sources: nix-darwin `modules/system/{activation-scripts,default,etc,launchd,checks}.nix`,
 * `modules/services/activate-system`, `pkgs/nix-tools/darwin-rebuild.sh`.
 */
import type { StorePath } from "../../../nix/store-path.ts";
import { readTextOrNull } from "../../machine/look.ts";
import type { ProgramExit } from "../../machine/process.ts";
import { codeOf, describeExit, isSuccess } from "../../machine/program-exit.ts";
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

const CURRENT_SYSTEM = "/run/current-system";
/** Of the script that nix-darwin leaves where users' scripts once were. */
const DEPRECATED = /^# nix-darwin: deprecated$/m;
const LINK_MAX_MS = 60_000;

export function createDarwinDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  const { storePath } = record;
  const runsNew = async () => (await deps.readCurrentSystem()) === storePath;
  return {
    async check() {
      const reason = (await findObstacle(record)) ?? (await findFault(storePath));
      return reason === null ? DONE : { kind: "refused", reason, exitCode: null };
    },
    async activate() {
      const exit = await runScripts(storePath, deps);
      const reason = `the new system's activation ${describeExit(exit)}`;
      if (exit.kind === "not-started") return { kind: "refused", reason, exitCode: null };
      if (!isSuccess(exit)) return { kind: "bad", reason, exitCode: codeOf(exit) };
      if (await runsNew()) return { kind: "good", exitCode: 0 };
      return { kind: "bad", reason: `${reason}, but ${CURRENT_SYSTEM} does not name it`, exitCode: 0 };
    },
    commit: () => setProfile(storePath, deps),
    undo: () => undo(deps),
    runsNew,
  };
}

async function findFault(system: StorePath): Promise<string | null> {
  const fault = await describeProgramFault(`${system}/activate`);
  return fault === null ? null : `the new system's script ${system}/activate ${fault}`;
}

async function undo(deps: DriverDeps): Promise<StageEnd> {
  const { storePath, previous } = deps.record;
  const { current, profile } = previous;
  if (current === null) return { kind: "bad", reason: "there is no earlier system to go back to", exitCode: null };
  const restored = profile === null ? await removeProfile(deps) : await setProfile(profile, deps);
  if (restored.kind !== "good") return restored;
  if ((await deps.readCurrentSystem()) !== storePath) {
    const args = ["-sfn", storePath, CURRENT_SYSTEM];
    const linked = await runLogged({ command: "ln", args, deadlineMs: LINK_MAX_MS }, deps);
    if (!isSuccess(linked)) return { kind: "bad", reason: `ln ${describeExit(linked)}`, exitCode: codeOf(linked) };
  }
  const exit = await runScripts(current, deps);
  const running = await deps.readCurrentSystem();
  if (isSuccess(exit) && running === current) return DONE;
  const reason = `the previous system's activation ${describeExit(exit)}, and ${running ?? "nothing"} is current`;
  return { kind: "bad", reason, exitCode: codeOf(exit) };
}

/** @returns how the first of them that failed ended, or the last one */
async function runScripts(system: StorePath, deps: DriverDeps): Promise<ProgramExit> {
  const { record } = deps;
  const deadlineMs = timeForScript(record);
  const forUser = `${system}/activate-user`;
  const text = await readTextOrNull(forUser);
  if (text !== null && !DEPRECATED.test(text)) {
    // As darwin-rebuild: as the person who asked for it, where sudo says who that is.
    const person = record.environment["SUDO_USER"];
    const [command = forUser, ...args] =
      person === undefined ? [forUser] : ["sudo", `--user=${person}`, "--set-home", "--", forUser];
    const exit = await runLogged({ command, args, deadlineMs }, deps);
    if (!isSuccess(exit)) return exit;
  }
  return await runLogged({ command: `${system}/activate`, args: [], deadlineMs }, deps);
}
