/** What `nixdeploy local` does, put together on a real machine: programs, links, systemd, the Nix daemon. */
import type { Logger } from "../../log.ts";
import { drawId, parseDeploymentId } from "../../names.ts";
import { connectDaemon } from "../../nix/daemon/connect.ts";
import type { ReportEntry } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import { createActivations } from "../activation/activations.ts";
import { launchSupervisor } from "../activation/launch.ts";
import { readRecord } from "../activation/record.ts";
import { readOwnHealthChecks } from "../health/own-health-checks.ts";
import type { OutcomeEntry } from "../journal/journal.ts";
import { readEnrolment } from "../link/enrolment.ts";
import { systemBootClock } from "../machine/boot-clock.ts";
import { STORE_PLACES, syncFileSystems } from "../machine/file-systems.ts";
import { createGcRoots } from "../machine/gc-roots.ts";
import { readCurrentHome } from "../machine/home.ts";
import { createMachine, readPlatform, readTopNames } from "../machine/machine.ts";
import { runProgram } from "../machine/process.ts";
import { readProfile } from "../machine/profile-link.ts";
import { cleanEnvironment } from "../machine/program-environment.ts";
import { createServiceManager } from "../machine/service-manager.ts";
import { resolveSpecialisation } from "../machine/specialisation.ts";
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
