/** `nixdeploy local activate` on a real machine: `activateHere` with what the agent would do it with. */
import type { Logger } from "../../log.ts";
import { drawId, parseDeploymentId } from "../../names.ts";
import { connectDaemon } from "../../nix/daemon/connect.ts";
import type { ReportEntry } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { OutcomeEntry } from "../journal/journal.ts";
import { readEnrolment } from "../link/enrolment.ts";
import { readProfile } from "../machine/profile-link.ts";
import { cleanEnvironment } from "../machine/program-environment.ts";
import { createThisMachine } from "../this-machine.ts";
import { activateHere, type LocalRequest } from "./local-activation.ts";
import type { LocalTarget } from "./local-target.ts";

export type LocalMachineOptions = {
  readonly target: LocalTarget;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly onEntry: (entry: ReportEntry) => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

/** @throws as `activateHere` */
export async function activateOnThisMachine(
  request: Omit<LocalRequest, "deploymentId">,
  options: LocalMachineOptions,
): Promise<OutcomeEntry> {
  const { target, clock, logger, signal } = options;
  const { name, stateDirectory, profilePath, healthChecksFile } = target;
  const coordinatorUrl = (await readEnrolment(stateDirectory))?.coordinatorUrl ?? "";
  const { machine, gcRoots, activations } = createThisMachine({
    config: { name, coordinatorUrl, profilePath, stateDirectory },
    environment: cleanEnvironment(options.environment),
    ...{ healthChecksFile, clock, logger },
  });
  const deploymentId = parseDeploymentId(drawId(options.random));
  return await activateHere(
    { ...request, deploymentId },
    {
      ...options,
      activations,
      gcRoots,
      connectDaemon: () => connectDaemon({ signal, clock, environment: options.environment }),
      readProfilePath: async () => (await readProfile(profilePath)).storePath,
      readLivePaths: async () => [await machine.readCurrentSystem(), (await machine.readState(null)).currentPath],
    },
  );
}
