/**
 * What would make an activation fail half-way, looked for while nothing is touched. The new version's own script is not
 * looked at here: it is run, for its check.
 */
import { dirname } from "node:path";
import { parseOwnHealthChecks, storePathOf } from "../../health-check.ts";
import { isExecutableFile, mayWrite } from "../machine/look.ts";
import type { ActivationRecord } from "./record.ts";

/** @returns why it would fail, a sentence without its full stop, or null */
export async function findObstacle(record: ActivationRecord): Promise<string | null> {
  const { mode, rollbackScript } = record;
  if (rollbackScript !== null && mode !== "dry-activate" && !(await isExecutableFile(rollbackScript))) {
    return `the rollback script ${rollbackScript} is not an executable file`;
  }
  if (mode === "switch" || mode === "test") {
    for (const { name, program } of programsOfChecks(record)) {
      if (!(await isExecutableFile(program))) {
        return `the program ${program} of the health check ${name} is not an executable file`;
      }
    }
  }
  const directory = dirname(record.profilePath);
  const setsProfile = mode === "switch" || mode === "boot";
  // One that is not there yet is made when it is needed.
  const isBlocked = setsProfile && !(await mayWrite(directory, { whenMissing: true }));
  if (isBlocked) return `the profile directory ${directory} is not writable`;
  return null;
}

/** Only those of the store: a program of the device may come with the new version. */
function programsOfChecks({ healthChecks }: ActivationRecord): { readonly name: string; readonly program: string }[] {
  const parsed = parseOwnHealthChecks(healthChecks ?? [], "health checks");
  if (parsed.kind === "faults") return [];
  return parsed.checks.flatMap((check) =>
    check.kind === "command" && storePathOf(check) !== null
      ? [{ name: check.name, program: check.command[0] ?? "" }]
      : [],
  );
}
