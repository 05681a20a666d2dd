/** What a Nix profile names at this moment, read from its links. Setting profiles is left to `nix-env`. */
import { readlink } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { parseGenerationLink } from "../../nix/profile.ts";
import { type StorePath, storePathContaining } from "../../nix/store-path.ts";
import { listNames } from "./look.ts";
import { hasCode, isMissing } from "./system-error.ts";

export type ProfileState = {
  /** Null when there is no such profile, or it does not lead into the store. */
  readonly storePath: StorePath | null;
  readonly generation: number | null;
};

/** Links from a profile to the store: itself, its generation, and some to spare (`/nix/var/nix/profiles/default`, …). */
const LINKS_MAX = 8;

/** @param path absolute, of the profile's link */
export async function readProfile(path: string): Promise<ProfileState> {
  let generation: number | null = null;
  let place = path;
  for (let links = 0; links < LINKS_MAX; links += 1) {
    const storePath = storePathContaining(place);
    if (storePath !== null) return { storePath, generation };
    const target = await readLink(place);
    if (target === null) break;
    place = resolve(dirname(place), target);
    generation = parseGenerationLink(basename(place))?.generation ?? generation;
  }
  return { storePath: null, generation: null };
}

/** The store path that a link such as /run/current-system leads to; null when there is none. */
export async function readStoreLink(path: string): Promise<StorePath | null> {
  return (await readProfile(path)).storePath;
}

async function readLink(path: string): Promise<string | null> {
  try {
    return await readlink(path);
  } catch (error) {
    // EINVAL: there is something, but it is no link.
    if (isMissing(error) || hasCode(error, "EINVAL")) return null;
    throw error;
  }
}

export type Generation = { readonly number: number; readonly storePath: StorePath };

/** The generations of a profile that are still there, oldest first. @param path absolute, of the profile's link */
export async function listGenerations(path: string): Promise<readonly Generation[]> {
  const generations: Generation[] = [];
  for (const name of await listNames(dirname(path))) {
    const link = parseGenerationLink(name);
    if (link?.profile !== basename(path)) continue;
    const storePath = await readStoreLink(resolve(dirname(path), name));
    if (storePath !== null) generations.push({ number: link.generation, storePath });
  }
  return generations.sort((a, b) => a.number - b.number);
}
