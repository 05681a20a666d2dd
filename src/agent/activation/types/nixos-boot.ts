/**
 * What NixOS has beyond the running system: profile, boot entries, the boot loader's default, and a trial of one boot.
 *
 *   planTrial  can the boot loader try the new system once, and fall back by itself?
 *   arm        the old entry pinned; profile and entries of the new system; the new entry for the next boot alone
 *   settle     after the proof: what was pinned before, so that the configuration, which names the new one, counts
 *   restore    the previous profile and its entries, while the old entry is still pinned; then what was pinned before
 *
 * At any moment of these, the next boot boots the old system or, once its one-shot is set, the new one for one time.
 * Each step may be done again. Without a trial there is nothing to pin, and the configuration alone decides.
 */
import { describeError } from "../../../errors.ts";
import type { StorePath } from "../../../nix/store-path.ts";
import { type BootLoader, findEntry } from "../boot/boot-loader.ts";
import type { ActivationRecord, Trial } from "../record.ts";
import { DONE, type DriverDeps, removeProfile, type StageEnd, setProfile } from "./driver.ts";

/** Runs `switch-to-configuration boot` of a system. */
export type Install = (system: StorePath) => Promise<StageEnd>;

/** Asks, and changes nothing. */
export async function planTrial(deps: DriverDeps): Promise<Trial> {
  const { previous, replacedTrial } = deps.record;
  // Its old entry is pinned, and has booted.
  if (replacedTrial?.trial?.kind === "one-shot") return replacedTrial.trial;
  const system = previous.profile ?? previous.current;
  if (system === null) return { kind: "none", why: "there is no earlier system to fall back to" };
  try {
    const loader = await deps.boot.findBootLoader(deps.run);
    if (typeof loader === "string") return { kind: "none", why: loader };
    const entry = findEntry(await loader.listEntries(), system);
    if (entry === null) return { kind: "none", why: `${loader.kind} has no entry that boots ${system}` };
    const pinnedBefore = await loader.readPinned();
    return { kind: "one-shot", loader: loader.kind, pinnedBefore, fallback: { system, entry } };
  } catch (error) {
    return { kind: "none", why: describeError(error) };
  }
}

/** @returns "refused" while nothing has been changed */
export async function arm(deps: DriverDeps, install: Install): Promise<StageEnd> {
  const { record } = deps;
  const { storePath, trial } = record;
  if (trial?.kind !== "one-shot") return await makePermanent(deps, install);
  try {
    const loader = await openLoader(deps, trial);
    await deps.log("agent", `${trial.loader}: ${trial.fallback.entry} stays the default`);
    await loader.pin(trial.fallback.entry);
  } catch (error) {
    return { kind: "refused", reason: `the boot loader cannot be told: ${describeError(error)}`, exitCode: null };
  }
  const installed = await makePermanent(deps, install);
  if (installed.kind !== "good") return installed;
  return await guarded(async () => {
    const loader = await openLoader(deps, trial);
    const entry = findEntry(await loader.listEntries(), storePath);
    if (entry === null) return `it has no entry that boots ${storePath}`;
    await deps.log("agent", `${trial.loader}: ${entry} for the next boot alone`);
    await loader.setOneShot(entry);
    return null;
  });
}

/** The profile, and what the boot loader boots where nothing is pinned. */
export async function makePermanent({ record, ...deps }: DriverDeps, install: Install): Promise<StageEnd> {
  const set = await setProfile(record.storePath, { ...deps, record });
  return set.kind === "good" ? await install(record.storePath) : set;
}

/** The configuration decides again. */
export async function settle(deps: DriverDeps): Promise<StageEnd> {
  const { trial, replacedTrial } = deps.record;
  const known = trial?.kind === "one-shot" ? trial : replacedTrial?.trial;
  if (known?.kind !== "one-shot") return DONE;
  return await guarded(async () => {
    const loader = await openLoader(deps, known);
    await forgetOneShot(deps, loader);
    // Somebody else's choice stays.
    if ((await loader.readPinned()) !== known.fallback.entry || known.pinnedBefore === known.fallback.entry)
      return null;
    await deps.log("agent", `${loader.kind}: the default is ${known.pinnedBefore ?? "what is installed"} again`);
    await loader.pin(known.pinnedBefore);
    return null;
  });
}

/** Back to the previous profile, its entries, and what was pinned; a trial that waited before waits again. */
export async function restore(deps: DriverDeps, install: Install): Promise<StageEnd> {
  const { previous, replacedTrial } = deps.record;
  // First, so that no reboot on the way back tries the new system once more. The rest does not depend on it.
  const cleared = await clearOneShot(deps);
  const profile = previous.profile === null ? await removeProfile(deps) : await setProfile(previous.profile, deps);
  if (profile.kind !== "good") return profile;
  const system = previous.profile ?? previous.current;
  // As long as the configuration names the new system, the old one stays pinned.
  const installed = system === null ? DONE : await install(system);
  if (installed.kind !== "good" || cleared.kind !== "good") return installed.kind === "good" ? cleared : installed;
  if (replacedTrial !== undefined) return await rearm(deps, replacedTrial);
  return await settle(deps);
}

async function clearOneShot(deps: DriverDeps): Promise<StageEnd> {
  const { trial } = deps.record;
  if (trial?.kind !== "one-shot") return DONE;
  return await guarded(async () => {
    await forgetOneShot(deps, await openLoader(deps, trial));
    return null;
  });
}

/** The one of this activation, or of the trial that it replaces; also one whose entry is gone. */
async function forgetOneShot({ record }: DriverDeps, loader: BootLoader): Promise<void> {
  const oneShot = await loader.readOneShot();
  if (oneShot === null) return;
  const system = (await loader.listEntries()).find(({ id }) => id === oneShot)?.system;
  const ours = [record.storePath, record.replacedTrial?.storePath];
  if (system === undefined || ours.includes(system)) await loader.setOneShot(null);
}

/** The trial that waited before this activation, unless this boot is it, or the way back takes another boot first. */
async function rearm(deps: DriverDeps, waiting: Pick<ActivationRecord, "trial" | "storePath">): Promise<StageEnd> {
  const { trial, storePath } = waiting;
  const booted = await deps.boot.readBootedSystem();
  if (trial?.kind !== "one-shot" || booted === storePath || booted === deps.record.storePath) return DONE;
  return await guarded(async () => {
    const loader = await openLoader(deps, trial);
    await loader.pin(trial.fallback.entry);
    await loader.setOneShot(findEntry(await loader.listEntries(), storePath));
    return null;
  });
}

/** @throws Error when it is gone */
async function openLoader(deps: DriverDeps, trial: Extract<Trial, { kind: "one-shot" }>): Promise<BootLoader> {
  const loader = await deps.boot.findBootLoader(deps.run);
  if (typeof loader === "string") throw new Error(loader);
  if (loader.kind !== trial.loader) throw new Error(`it was ${trial.loader}, and is ${loader.kind}`);
  return loader;
}

async function guarded(work: () => Promise<string | null>): Promise<StageEnd> {
  let why: string | null;
  try {
    why = await work();
  } catch (error) {
    why = describeError(error);
  }
  if (why === null) return DONE;
  return { kind: "bad", reason: `the boot loader cannot be told: ${why}`, exitCode: null };
}
