/** Room for a new kernel and initrd on the boot partition, looked at before anything is touched. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { StorePath } from "../../../nix/store-path.ts";
import { formatBytes } from "../../../quantity.ts";
import { readFreeBytes, resolveOrNull } from "../../machine/look.ts";

/** Where boot loader installers of NixOS copy to, the first that exists. */
export const BOOT_DIRECTORIES = ["/boot", "/boot/efi", "/efi"] as const;
/** File system overhead, and the loader's own files. */
const SPACE_FACTOR = 1.1;

/** @returns why there is not enough room, or null */
export async function describeBootSpace(system: StorePath, current: StorePath | null): Promise<string | null> {
  let neededBytes = 0;
  for (const part of ["kernel", "initrd"]) {
    const file = await resolveOrNull(join(system, part));
    if (file === null || (current !== null && file === (await resolveOrNull(join(current, part))))) continue;
    neededBytes += (await stat(file)).size;
  }
  if (neededBytes === 0) return null;
  for (const directory of BOOT_DIRECTORIES) {
    const freeBytes = await readFreeBytes(directory);
    if (freeBytes === null) continue;
    const wantedBytes = Math.ceil(neededBytes * SPACE_FACTOR);
    if (freeBytes >= wantedBytes) return null;
    return `${directory} is too full: its kernel and initrd need ${formatBytes(wantedBytes)}, there are ${formatBytes(freeBytes)} free`;
  }
  return null;
}
