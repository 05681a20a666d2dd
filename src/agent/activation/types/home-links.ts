/**
 * The links in a home that belong to a Home Manager generation: `$HOME/PATH → …-home-manager-files/PATH`, one for each
 * file of its `home-files`. Its own script removes those of the generation before; what is here is for the case that a
 * script was interrupted half-way, when no script knows of both generations any more.
 *
 * Sources: home-manager `modules/files.nix` (linkGeneration: link, cleanup).
 */
import { readdir, readlink, rm, rmdir } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { StorePath } from "../../../nix/store-path.ts";
import { resolveOrNull } from "../../machine/look.ts";
import { hasCode, isMissing } from "../../machine/system-error.ts";

/** The files of a generation, by path below the home. */
export type HomeFiles = {
  /** What the links lead to; null for a generation without files. */
  readonly source: string | null;
  readonly paths: ReadonlySet<string>;
};

/** @param generation null for none */
export async function readHomeFiles(generation: StorePath | null): Promise<HomeFiles> {
  const source = generation === null ? null : await resolveOrNull(join(generation, "home-files"));
  return { source, paths: new Set(source === null ? [] : await listLeaves(source)) };
}

/** What is at each place that any of the generations has a file for. Equal when nothing was touched. */
export async function photographHome(home: string, generations: readonly HomeFiles[]): Promise<string> {
  const paths = [...new Set(generations.flatMap(({ paths }) => [...paths]))].sort();
  const lines: string[] = [];
  for (const path of paths) lines.push(`${path}\0${await describePlace(join(home, path))}`);
  return lines.join("\n");
}

/** Removes its links where `kept` has no file, with the directories that become empty. */
export async function unlinkGeneration(
  home: string,
  { source, paths }: HomeFiles,
  kept: HomeFiles,
): Promise<readonly string[]> {
  const removed: string[] = [];
  if (source === null || source === kept.source) return removed;
  for (const path of paths) {
    const place = join(home, path);
    if (kept.paths.has(path) || (await describePlace(place)) !== `-> ${join(source, path)}`) continue;
    await rm(place);
    await removeEmpty(dirname(place), home);
    removed.push(path);
  }
  return removed;
}

async function listLeaves(directory: string, below = ""): Promise<string[]> {
  const leaves: string[] = [];
  for (const entry of await readdir(join(directory, below), { withFileTypes: true })) {
    const path = join(below, entry.name);
    if (entry.isDirectory()) leaves.push(...(await listLeaves(directory, path)));
    else leaves.push(path);
  }
  return leaves;
}

/** "-> TARGET" of a link, "missing", or "other". */
async function describePlace(path: string): Promise<string> {
  try {
    return `-> ${await readlink(path)}`;
  } catch (error) {
    if (isMissing(error)) return "missing";
    if (hasCode(error, "EINVAL")) return "other";
    throw error;
  }
}

async function removeEmpty(directory: string, home: string): Promise<void> {
  const below = relative(home, directory);
  if (below === "" || below.startsWith("..")) return;
  try {
    await rmdir(directory);
  } catch (error) {
    // Somebody else's files are in it; or it is a link, which is not ours.
    if (hasCode(error, "ENOTEMPTY") || hasCode(error, "EEXIST") || isMissing(error)) return;
    throw error;
  }
  await removeEmpty(dirname(directory), home);
}
