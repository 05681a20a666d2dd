/** Whether the new system has the kernel that runs: what a switch without a reboot cannot prove. */
import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../system-error.ts";

const BOOTED = "/run/booted-system";
const PARTS = ["kernel", "initrd"] as const;

/** @returns what to tell, or null when kernel, initrd and kernel parameters are those that were booted */
export async function describeUnprovedKernel(system: string): Promise<string | null> {
  const different: string[] = [];
  for (const part of PARTS) {
    if ((await resolveOrNull(join(system, part))) !== (await resolveOrNull(join(BOOTED, part)))) different.push(part);
  }
  if ((await readOrNull(join(system, "kernel-params"))) !== (await readOrNull(join(BOOTED, "kernel-params")))) {
    different.push("kernel parameters");
  }
  return different.length === 0 ? null : `new ${different.join(", ")} not proved: that takes a reboot`;
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
