/**
 * What must not change while a NixOS system runs (`system.switch.inhibitors`, 26.05): both systems list names with a
 * value each, and a name that both have must have the same value. Its own check says so too, and no more than code 1.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { StorePath } from "../../../nix/store-path.ts";
import { isMissing } from "../../machine/system-error.ts";

const inhibitorsSchema = z.record(z.string(), z.string());
type Inhibitors = z.output<typeof inhibitorsSchema>;

/** @returns their names; none where one of the systems does not say, or in a way that we do not know */
export async function readInhibitors(from: StorePath, to: StorePath): Promise<readonly string[]> {
  return findInhibitors(await read(from), await read(to));
}

export function findInhibitors(from: Inhibitors, to: Inhibitors): string[] {
  return Object.keys(to)
    .filter((name) => Object.hasOwn(from, name) && from[name] !== to[name])
    .sort();
}

async function read(system: StorePath): Promise<Inhibitors> {
  try {
    return inhibitorsSchema.parse(JSON.parse(await readFile(join(system, "switch-inhibitors"), "utf8")));
  } catch (error) {
    // Then the system's own check decides.
    if (isMissing(error) || error instanceof SyntaxError || error instanceof z.ZodError) return {};
    throw error;
  }
}
