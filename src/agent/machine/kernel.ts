/** Whether a system has what was booted: what a switch without a reboot can neither prove nor put to use. */
import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "./system-error.ts";

const BOOTED = "/run/booted-system";
/** Entry of a toplevel → what a person calls it. */
const LINKS = { kernel: "kernel", initrd: "initrd", "kernel-modules": "modules" } as const;

/** What of this system is not what was booted, in a fixed order. @param booted its toplevel */
export async function listBootDifferences(system: string, booted: string = BOOTED): Promise<readonly string[]> {
  const different: string[] = [];
  for (const [entry, name] of Object.entries(LINKS)) {
    if ((await resolveOrNull(join(system, entry))) !== (await resolveOrNull(join(booted, entry)))) different.push(name);
  }
  if ((await readOrNull(join(system, "kernel-params"))) !== (await readOrNull(join(booted, "kernel-params")))) {
    different.push("kernel parameters");
  }
  return different;
}

async function resolveOrNull(path: string): Promise<string | null> {
  try {
    return await realpath(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}
