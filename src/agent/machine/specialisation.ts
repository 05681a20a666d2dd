/**
 * Specialisations of a NixOS system: variants of it with a toplevel of their own, to which `specialisation/NAME` in the
 * system leads. Which one runs is written down nowhere: /run/current-system names the variant's toplevel alone, so the
 * systems that it may belong to are searched for it.
 *
 * A host that runs one keeps it: of a new system the variant of the same name is made live, as `nixos-rebuild
 * --specialisation` does it, while profile and boot loader get the system itself. Its boot entries are written from the
 * profile's generations, and a stable nixpkgs' builder takes no variant for the default.
 *
 * Source: nixpkgs `nixos/modules/system/activation/specialisation.nix`, `pkgs/by-name/ni/nixos-rebuild-ng`,
 * `nixos/modules/system/boot/loader/systemd-boot/systemd-boot-builder.py`.
 */
import { readdir, readlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type StorePath, storePathContaining } from "../../nix/store-path.ts";
import { hasCode, isMissing } from "./system-error.ts";

export type RunningSpecialisation = {
  /** The system whose variant it is. */
  readonly base: StorePath;
  readonly name: string;
};

const DIRECTORY = "specialisation";
/** Of one system; a system has a handful. */
const SPECIALISATIONS_MAX = 200;

/**
 * @param bases systems of which `current` may be a variant, likeliest first
 * @returns null when `current` belongs to none
 */
export async function findSpecialisation(
  current: StorePath,
  bases: readonly StorePath[],
): Promise<RunningSpecialisation | null> {
  for (const base of new Set(bases)) {
    for (const name of await listSpecialisations(base)) {
      if ((await resolveSpecialisation(base, name)) === current) return { base, name };
    }
  }
  return null;
}

/** The toplevel of this variant; null when the system has none of that name. */
export async function resolveSpecialisation(system: StorePath, name: string): Promise<StorePath | null> {
  const directory = join(system, DIRECTORY);
  try {
    return storePathContaining(resolve(directory, await readlink(join(directory, name))));
  } catch (error) {
    // EINVAL: there is something, but it is no link.
    if (isMissing(error) || hasCode(error, "EINVAL") || hasCode(error, "ENOTDIR")) return null;
    throw error;
  }
}

/** Where the variant's programs are found: below the system that has it. */
export function specialisationDirectory(system: StorePath, name: string): string {
  return join(system, DIRECTORY, name);
}

/** By name. */
async function listSpecialisations(system: StorePath): Promise<readonly string[]> {
  try {
    return (await readdir(join(system, DIRECTORY))).sort().slice(0, SPECIALISATIONS_MAX);
  } catch (error) {
    if (isMissing(error) || hasCode(error, "ENOTDIR")) return [];
    throw error;
  }
}
