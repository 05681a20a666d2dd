/** Whether a system has what was booted: what a switch without a reboot can neither prove nor put to use. */
import { join } from "node:path";
import { readTextOrNull, resolveOrNull } from "./look.ts";

const BOOTED = "/run/booted-system";
/** Entry of a toplevel → what a person calls it. */
const LINKS = { kernel: "kernel", initrd: "initrd", "kernel-modules": "modules" } as const;

/** What of this system is not what was booted, in a fixed order. @param booted its toplevel */
export async function listBootDifferences(system: string, booted: string = BOOTED): Promise<readonly string[]> {
  const different: string[] = [];
  for (const [entry, name] of Object.entries(LINKS)) {
    if ((await resolveOrNull(join(system, entry))) !== (await resolveOrNull(join(booted, entry)))) different.push(name);
  }
  if ((await readTextOrNull(join(system, "kernel-params"))) !== (await readTextOrNull(join(booted, "kernel-params")))) {
    different.push("kernel parameters");
  }
  return different;
}
