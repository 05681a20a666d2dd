/** The unit of systemd that runs something: looked for by its names and by what it runs. */
import { exists } from "../agent/machine/look.ts";
import { cleanEnvironment } from "../agent/machine/program-environment.ts";
import { runSmallProgram } from "../agent/machine/small-program.ts";
import type { Clock } from "../runtime.ts";
import { parseUnit, UNIT_PROPERTIES, type UnitAnswer } from "./judge-units.ts";

export type UnitQuestion = {
  /** The first that is there, and runs the right thing, counts. */
  readonly names: readonly string[];
  /** By its command, as systemd says it. */
  readonly isRight: (name: string, command: string) => boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
};

const SYSTEMCTL_MAX_MS = 4_000;

/** Among the system's units, then among those of this user's own systemd. */
export async function findUnit(question: UnitQuestion): Promise<UnitAnswer> {
  if (!(await exists("/run/systemd/system"))) return { kind: "unknown", why: "no systemd here" };
  let hasAnswer = false;
  for (const isUsers of [false, true]) {
    for (const name of question.names) {
      const lines = await askSystemd(name, { ...question, isUsers });
      if (lines === null) break;
      hasAnswer = true;
      const unit = parseUnit(lines, { name, isUsers });
      if (unit !== null && question.isRight(name, unit.command)) return { kind: "found", unit };
    }
  }
  return hasAnswer ? { kind: "none" } : { kind: "unknown", why: "systemd does not answer this user" };
}

/** Null when it cannot be asked. */
async function askSystemd(
  name: string,
  { isUsers, environment, clock }: Pick<UnitQuestion, "environment" | "clock"> & { readonly isUsers: boolean },
): Promise<readonly string[] | null> {
  const lines: string[] = [];
  const exit = await runSmallProgram({
    command: "systemctl",
    args: [...(isUsers ? ["--user"] : []), "show", `--property=${UNIT_PROPERTIES.join(",")}`, "--", name],
    environment: cleanEnvironment(environment),
    deadlineMs: SYSTEMCTL_MAX_MS,
    clock,
    onLine: async (stream, text) => {
      if (stream === "out") lines.push(text);
    },
  });
  return exit.kind === "exited" && exit.code === 0 ? lines : null;
}
