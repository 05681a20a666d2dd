/**
 * A boot loader that can try a system for one boot: it has a variable for the default, which comes before what the
 * configuration written by NixOS says, and one for the next boot alone, which it forgets when it has read it.
 *
 *     pin(old entry)         whatever is installed now, the old system boots
 *     (install the new one)
 *     setOneShot(new entry)  the next boot tries the new one, the boot after it the old one again
 *     pin(what it was)       after the proof, or after the undo: the configuration counts again
 *
 * An entry is known by what it boots (`init=` on its kernel command line), not by how NixOS names it, which changes
 * from version to version. Loaders that cannot (GRUB without `default = "saved"`, extlinux, none at all) are not used.
 */
import { parseStorePath, STORE_DIR, type StorePath } from "../../../nix/store-path.ts";
import type { BOOT_LOADERS } from "../record.ts";

export type BootEntry = {
  /** As the loader's variables name it. */
  readonly id: string;
  readonly system: StorePath;
};

export type BootLoader = {
  readonly kind: (typeof BOOT_LOADERS)[number];
  /** Those that will boot the same system whatever is installed later. @throws NixdeployError("host") */
  listEntries(): Promise<readonly BootEntry[]>;
  /** What the variable for the default names; null: nothing. @throws NixdeployError("host") */
  readPinned(): Promise<string | null>;
  /** What the variable for the next boot names; null: nothing. @throws NixdeployError("host") */
  readOneShot(): Promise<string | null>;
  /** null: the configuration decides. @throws NixdeployError("host") */
  pin(entry: string | null): Promise<void>;
  /** null: no boot is special. @throws NixdeployError("host") */
  setOneShot(entry: string | null): Promise<void>;
};

/** Runs a program of a boot loader. @returns its standard output. @throws NixdeployError("host") */
export type RunLoaderTool = (command: string, args: readonly string[]) => Promise<string>;

/** The newest of those that boot a system, or null. */
export function findEntry(entries: readonly BootEntry[], system: StorePath): string | null {
  return entries.findLast((entry) => entry.system === system)?.id ?? null;
}

/** Of a kernel command line. @returns the system whose `init` it names, or null */
export function parseInit(commandLine: string): StorePath | null {
  for (const word of commandLine.split(/\s+/)) {
    const path = /^init=(.*)\/init$/.exec(word)?.[1];
    if (path?.startsWith(`${STORE_DIR}/`) !== true) continue;
    try {
      return parseStorePath(path);
    } catch {
      return null; // Of a specialisation, or of something that is not ours.
    }
  }
  return null;
}
