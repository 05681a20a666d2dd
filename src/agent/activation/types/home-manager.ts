/**
 * Home Manager: the generation's own script links its files into the home; the profile follows the proof.
 *
 *   check     the script, the home, the profile; dry-activate: the script with DRY_RUN
 *   activate  PATH/activate, which cleans up after the generation before
 *   commit    nix-env --set
 *   undo      what only the new generation linked; the previous generation's `activate`; the profile
 *
 * Two protocols. With `gen-version` the script takes `--driver-version 1` and leaves the profile alone. Without it the
 * script sets Home Manager's own profile itself, before it links, and finds there what to clean up after; so the profile
 * is never set before it, and commit only looks.
 *
 * What is live is what the root `current-home` names: the script's last step (older protocol: a step before linking).
 * An undo takes it away first, so that nobody takes a home that is half-way back for a live one.
 *
 * Sources: home-manager `modules/home-environment.nix`, `modules/files.nix`, `modules/lib-bash/activation-init.sh`,
 * `home-manager/home-manager` (doSwitch), docs/manual/internals/activation.md.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { StorePath } from "../../../nix/store-path.ts";
import { findHomePlaces, type HomePlaces } from "../../machine/home.ts";
import { exists, mayWrite } from "../../machine/look.ts";
import { readStoreLink } from "../../machine/profile-link.ts";
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
import { type HomeFiles, photographHome, readHomeFiles, unlinkGeneration } from "./home-links.ts";

/** A link, and packages of one user. */
const SMALL_MAX_MS = 2 * 60_000;
/** The script names each of its steps; everything before this one only looks. */
const WRITE_BOUNDARY = /\bwriteBoundary\b/;
const NOT_TAKEN_BACK = "what its own steps did besides linking files and installing packages is not taken back";

type Home = DriverDeps & {
  readonly places: HomePlaces;
  readonly files: (path: StorePath | null) => Promise<HomeFiles>;
};

export function createHomeManagerDriver(deps: DriverDeps): Driver {
  const { record } = deps;
  const home: Home = { ...deps, places: findHomePlaces(record.environment), files: readHomeFiles };
  return {
    async check() {
      const reason = await findFault(home);
      if (reason !== null) return { kind: "refused", reason, exitCode: null };
      return record.mode === "dry-activate" ? await dryActivate(home) : DONE;
    },
    activate: () => activate(home),
    commit: () => commit(home),
    undo: () => (record.previous.current === null ? undoFirst(home) : undoTo(record.previous.current, home)),
    runsNew: async () => (await readStoreLink(home.places.currentRoot)) === record.storePath,
  };
}

/** @returns why it must not begin, a sentence without its full stop, or null */
async function findFault({ record, places }: Home): Promise<string | null> {
  const { storePath, profilePath, previous } = record;
  const obstacle = await findObstacle(record);
  if (obstacle !== null) return obstacle;
  const script = `${storePath}/activate`;
  const fault = await describeProgramFault(script);
  if (fault !== null) return `the new generation's script ${script} ${fault}`;
  if (!(await mayWrite(places.home, { whenMissing: false })))
    return `the home directory ${places.home} is not writable`;
  if (places.profileToMove !== null) {
    return `Home Manager's profile is still ${places.profileToMove}, which its script would move; run \`home-manager switch\` once, or remove that profile`;
  }
  for (const generation of [storePath, previous.current]) {
    if (generation === null || profilePath === places.ownProfile || (await takesDriver(generation))) continue;
    return `${generation} is of the older protocol of Home Manager, whose script sets ${places.ownProfile} itself, and this agent keeps ${profilePath}`;
  }
  return null;
}

/** The script's own dry run. It says what it would do, and steps that a user wrote may not heed it. */
async function dryActivate(home: Home): Promise<StageEnd> {
  const { record } = home;
  const before = await photograph(home);
  const environment = { ...record.environment, DRY_RUN: "1" };
  const exit = await runScript(record.storePath, { ...home, record: { ...record, environment } });
  if ((await photograph(home)) !== before) {
    return { kind: "refused", reason: "the script changed the home although it was a dry run", exitCode: codeOf(exit) };
  }
  if (isSuccess(exit)) return { kind: "good", exitCode: 0 };
  return { kind: "refused", reason: `the dry run of the script ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

async function activate(home: Home): Promise<StageEnd> {
  const { storePath } = home.record;
  const before = await photograph(home);
  let mayWriteAlready = false;
  const exit = await runScript(storePath, home, (line) => {
    mayWriteAlready ||= WRITE_BOUNDARY.test(line);
  });
  if (isSuccess(exit)) return await ensureRoot(storePath, home);
  const reason = `the new generation's script ${describeExit(exit)}`;
  // Its code says nothing: 1 is a file in the way, found before anything was done, and any step that failed later.
  const isUntouched = !mayWriteAlready && (await photograph(home)) === before;
  return { kind: isUntouched ? "refused" : "bad", reason, exitCode: codeOf(exit) };
}

async function commit(home: Home): Promise<StageEnd> {
  const { storePath, profilePath } = home.record;
  if (await takesDriver(storePath)) return await setProfile(storePath, home);
  const named = await home.readProfilePath();
  if (named === storePath) return DONE;
  const reason = `the new generation's script did not set ${profilePath}, which names ${named ?? "nothing"}`;
  return { kind: "bad", reason, exitCode: null };
}

async function undoTo(generation: StorePath, home: Home): Promise<StageEnd> {
  const { record } = home;
  if (generation !== record.storePath) {
    await forgetRoots(home);
    await unlinkNew(home, generation);
  }
  const exit = await runScript(generation, home);
  if (!isSuccess(exit)) {
    return { kind: "bad", reason: `the previous generation's script ${describeExit(exit)}`, exitCode: codeOf(exit) };
  }
  const rooted = await ensureRoot(generation, home);
  if (rooted.kind !== "good") return rooted;
  return await restoreProfile(home);
}

/** There was no generation, so there is no script that could go back. */
async function undoFirst(home: Home): Promise<StageEnd> {
  await forgetRoots(home);
  await unlinkNew(home, null);
  const removed = await removePackages(home);
  const restored = await restoreProfile(home);
  return restored.kind === "good" ? { ...restored, note: removed ?? NOT_TAKEN_BACK } : restored;
}

async function restoreProfile(home: Home): Promise<StageEnd> {
  const { profile } = home.record.previous;
  return profile === null ? await removeProfile(home) : await setProfile(profile, home);
}

async function unlinkNew(home: Home, kept: StorePath | null): Promise<void> {
  const { places, record } = home;
  const removed = await unlinkGeneration(places.home, await home.files(record.storePath), await home.files(kept));
  if (removed.length > 0) await home.log("agent", `unlinked in ${places.home}: ${removed.join(", ")}`);
}

async function forgetRoots({ places, record }: Home): Promise<void> {
  for (const root of [places.currentRoot, places.newRoot]) {
    if ((await readStoreLink(root)) === record.storePath) await rm(root, { force: true });
  }
}

/** The script sets it last, except where it finds nothing to do, or was told not to. */
async function ensureRoot(generation: StorePath, home: Home): Promise<StageEnd> {
  const { currentRoot } = home.places;
  if ((await readStoreLink(currentRoot)) === generation) return { kind: "good", exitCode: 0 };
  const args = ["--realise", generation, "--add-root", currentRoot, "--indirect"];
  const exit = await runLogged({ command: "nix-store", args, deadlineMs: SMALL_MAX_MS }, home);
  if ((await readStoreLink(currentRoot)) === generation) return { kind: "good", exitCode: 0 };
  return { kind: "bad", reason: `rooting ${generation} ${describeExit(exit)}`, exitCode: codeOf(exit) };
}

/** As `nixProfileRemove home-manager-path` of its library. @returns what stays, or null */
async function removePackages(home: Home): Promise<string | null> {
  const name = "home-manager-path";
  const { environment } = home.record;
  const stateHome = environment["XDG_STATE_HOME"] ?? join(home.places.home, ".local/state");
  const manifests = [
    join(home.places.home, ".nix-profile/manifest.json"),
    join(stateHome, "nix/profile/manifest.json"),
  ];
  const isNew = (await Promise.all(manifests.map(exists))).includes(true);
  const program = isNew
    ? { command: "nix", args: ["--extra-experimental-features", "nix-command", "profile", "remove", name] }
    : { command: "nix-env", args: ["--uninstall", name] };
  const exit = await runLogged({ ...program, deadlineMs: SMALL_MAX_MS }, home);
  return isSuccess(exit) ? null : `its packages stay installed, and ${NOT_TAKEN_BACK}`;
}

async function runScript(generation: StorePath, home: Home, onLine?: (text: string) => void) {
  const { record } = home;
  const args = (await takesDriver(generation)) ? ["--driver-version", "1"] : [];
  const deadlineMs = timeForScript(record);
  return await runLogged({ command: `${generation}/activate`, args, deadlineMs }, home, onLine);
}

/** What an activation would change first of all. */
async function photograph(home: Home): Promise<string> {
  const { places, record } = home;
  const generations = [await home.files(record.storePath), await home.files(record.previous.current)];
  const root = await readStoreLink(places.currentRoot);
  return [await photographHome(places.home, generations), root, await home.readProfilePath()].join("\n");
}

async function takesDriver(generation: StorePath): Promise<boolean> {
  return await exists(join(generation, "gen-version"));
}
