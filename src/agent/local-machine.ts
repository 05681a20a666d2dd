/** What `nixdeploy local` does, put together on a real machine: programs, links, systemd, the Nix daemon. */
import type { Logger } from "../log.ts";
import { drawId, parseDeploymentId } from "../names.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import type { ReportEntry } from "../protocol.ts";
import type { Clock, Random } from "../runtime.ts";
import { createActivations } from "./activation/activations.ts";
import { systemBootClock } from "./activation/boot-clock.ts";
import { launchSupervisor } from "./activation/launch.ts";
import { readRecord } from "./activation/record.ts";
import { createServiceManager } from "./activation/service-manager.ts";
import { resolveSpecialisation } from "./activation/specialisation.ts";
import { readEnrolment } from "./enrolment.ts";
import { STORE_PLACES, syncFileSystems } from "./file-systems.ts";
import { createGcRoots } from "./gc-roots.ts";
import { readCurrentHome } from "./home.ts";
import type { OutcomeEntry } from "./journal.ts";
import { activateHere, type LocalRequest } from "./local-activation.ts";
import type { LocalTarget } from "./local-target.ts";
import { createMachine, readPlatform, readTopNames } from "./machine.ts";
import { readOwnHealthChecks } from "./own-health-checks.ts";
import { runProgram } from "./process.ts";
import { readProfile } from "./profile-link.ts";
import { cleanEnvironment } from "./program-environment.ts";

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
  const { name, stateDirectory, profilePath } = target;
  const environment = cleanEnvironment(options.environment);
  const syncStore = () => syncFileSystems({ places: STORE_PLACES, run: runProgram, environment, clock });
  const gcRoots = createGcRoots({ agent: name, isRoot: process.getuid?.() === 0, stateDirectory, syncStore });
  const machine = createMachine({
    ...{ profilePath, environment },
    readType: async () => (await readRecord(stateDirectory))?.type ?? null,
    readKept: gcRoots.list,
  });
  const services = createServiceManager({ agentName: name, run: runProgram, clock, environment });
  const coordinatorUrl = (await readEnrolment(stateDirectory))?.coordinatorUrl ?? "";
  const deploymentId = parseDeploymentId(drawId(options.random));
  return await activateHere(
    { ...request, deploymentId },
    {
      ...options,
      activations: createActivations({
        ...{ clock, logger, environment },
        config: { name, coordinatorUrl, profilePath, stateDirectory },
        launch: () => launchSupervisor({ ...{ stateDirectory, agentName: name, services, logger }, environment }),
        agentUnit: services.agentUnit,
        hasUnit: services.hasUnit,
        readCurrentSystem: machine.readCurrentSystem,
        readCurrentHome: () => readCurrentHome(environment),
        isRoot: process.getuid?.() === 0,
        readNames: readTopNames,
        readFailedUnits: services.readFailedUnits,
        platform: machine.system,
        readPlatform,
        findSpecialisation: machine.findSpecialisation,
        resolveSpecialisation,
        readOwnHealthChecks: async () =>
          target.healthChecksFile === null ? [] : await readOwnHealthChecks(target.healthChecksFile),
        bootClock: systemBootClock,
      }),
      gcRoots,
      connectDaemon: () => connectDaemon({ signal, clock, environment: options.environment }),
      readProfilePath: async () => (await readProfile(profilePath)).storePath,
      readLivePaths: async () => [await machine.readCurrentSystem(), (await machine.readState(null)).currentPath],
    },
  );
}
