/**
 * Starts a supervisor that outlives the agent: `nixdeploy supervise --state-dir …`, run from the program that runs now.
 *
 * Where systemd is used (`systemd.ts`): a transient unit, outside the agent's cgroup, started again by systemd when it
 * dies; and, for as long as the machine is touched, a timer that starts another one in case it is gone for good.
 * Elsewhere (containers, tests, agents of users): a process in a session of its own; when it dies, the agent's next
 * look starts another one.
 *
 * After a reboot both are gone. Then a unit of the system that boots does the same ({@link undoUnitOf}), and so does
 * the agent.
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { AgentName } from "../../names.ts";
import { ownProgram, startDetached } from "../machine/process.ts";
import type { ServiceManager } from "../machine/systemd.ts";
import type { Stage } from "./record.ts";

export type LaunchOptions = {
  readonly stateDirectory: string;
  readonly agentName: AgentName;
  readonly services: Pick<ServiceManager, "mayStartUnits" | "startTransient" | "stopUnits">;
};

/** Fires when a supervisor is gone; while one runs, what it starts finds the lock held and ends. */
export type Deadline = {
  /** In force on return, whatever becomes of us. @throws NixdeployError("host") */
  arm(stage: Stage, afterMs: number): Promise<void>;
  /** All that were armed. */
  disarm(): Promise<void>;
};

/**
 * The unit that runs `nixdeploy supervise --state-dir …` at each boot, without need of agent or network, so that what
 * a reboot interrupted is undone. A NixOS system must have it beside the agent's own. It must be `Type=exec` (a start
 * that waits for it would wait for itself) and must not be stopped or restarted by a switch (`restartIfChanged`,
 * `stopIfChanged` and `X-StopOnRemoval` false), because it may be what runs that switch.
 */
export function undoUnitOf(agentName: AgentName): string {
  return `nixdeploy-undo-${agentName}.service`;
}

/** After the deadline, how often it is looked whether there is a supervisor. */
const LOOK_AGAIN_MS = 30_000;
/** The supervisor itself comes first. */
const GRACE_MS = 2_000;
const STAGES_ARMED = [
  "activating",
  "arming",
  "rebooting",
  "confirming",
  "committing",
  "undoing",
  "returning",
] as const satisfies readonly Stage[];

export async function launchSupervisor(
  options: LaunchOptions & { readonly environment: Readonly<Record<string, string>>; readonly logger: Logger },
): Promise<void> {
  const { agentName, environment, services, logger } = options;
  const command = superviseCommand(options.stateDirectory);
  try {
    if (await services.mayStartUnits()) {
      return await services.startTransient({ name: `nixdeploy-activation-${agentName}`, command });
    }
  } catch (error) {
    // Better than nobody: before it touches anything it must arm its deadline, or else refuses.
    logger.warn(`the supervisor runs without a unit of its own: ${describeError(error)}`);
  }
  await startDetached({ command, environment });
}

/** @returns null where there is nobody who could start anything */
export async function createDeadline(options: LaunchOptions): Promise<Deadline | null> {
  const { agentName, services } = options;
  if (!(await services.mayStartUnits())) return null;
  const nameOf = (stage: Stage) => `nixdeploy-deadline-${agentName}-${stage}`;
  return {
    async arm(stage, afterMs) {
      await services.stopUnits([`${nameOf(stage)}.timer`]);
      await services.startTransient({
        name: nameOf(stage),
        command: superviseCommand(options.stateDirectory),
        timer: { afterMs: Math.max(0, afterMs) + GRACE_MS, againAfterMs: LOOK_AGAIN_MS },
      });
    },
    disarm: () => services.stopUnits(STAGES_ARMED.map((stage) => `${nameOf(stage)}.timer`)),
  };
}

function superviseCommand(stateDirectory: string): readonly string[] {
  return [...ownProgram(), "supervise", "--state-dir", stateDirectory];
}
