/** How programs end, and how that is said. */
import type { ProgramExit } from "./process.ts";

export function isSuccess(exit: ProgramExit): boolean {
  return exit.kind === "exited" && exit.code === 0;
}

export function codeOf(exit: ProgramExit): number | null {
  return exit.kind === "exited" ? exit.code : null;
}

/** "ended with code 1" and the like. */
export function describeExit(exit: ProgramExit): string {
  switch (exit.kind) {
    case "exited":
      return `ended with code ${exit.code}`;
    case "killed":
      return `was ended by ${exit.signal}`;
    case "timed-out":
      return `did not end within ${Math.round(exit.afterMs / 1_000)} s and was stopped`;
    case "not-started":
      return `could not be started (${exit.reason})`;
    default:
      return exit satisfies never;
  }
}
