/**
 * What the agent and `nixdeploy local` are both made of on a real machine, and must agree on: what the machine runs, the
 * roots of the garbage collector, and activations with programs, links and the service manager. Nothing is decided here.
 */
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime.ts";
import { type Activations, type ActivationsDeps, createActivations } from "./activation/activations.ts";
import { launchSupervisor } from "./activation/launch.ts";
import { readRecord } from "./activation/record.ts";
import { readOwnHealthChecks } from "./health/own-health-checks.ts";
import { systemBootClock } from "./machine/boot-clock.ts";
import { STORE_PLACES, syncFileSystems } from "./machine/file-systems.ts";
import { createGcRoots, type GcRoots } from "./machine/gc-roots.ts";
import { readCurrentHome } from "./machine/home.ts";
import { createMachine, type Machine, readPlatform, readTopNames } from "./machine/machine.ts";
import { runProgram } from "./machine/process.ts";
import { createServiceManager } from "./machine/service-manager.ts";
import { resolveSpecialisation } from "./machine/specialisation.ts";

export type ThisMachineOptions = {
  readonly config: ActivationsDeps["config"];
  /** The device's own health checks; null when it has none. */
  readonly healthChecksFile: string | null;
  /** For the programs; holds no secret. */
  readonly environment: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly logger: Logger;
};

export type ThisMachine = {
  readonly machine: Machine;
  readonly gcRoots: GcRoots;
  readonly activations: Activations;
};

export function createThisMachine(options: ThisMachineOptions): ThisMachine {
  const { config, healthChecksFile, environment, clock, logger } = options;
  const { name, profilePath, stateDirectory } = config;
  const isRoot = process.getuid?.() === 0;
  const syncStore = () => syncFileSystems({ places: STORE_PLACES, run: runProgram, environment, clock });
  const gcRoots = createGcRoots({ agent: name, isRoot, stateDirectory, syncStore });
  const machine = createMachine({
    ...{ profilePath, environment },
    readType: async () => (await readRecord(stateDirectory))?.type ?? null,
    readKept: gcRoots.list,
  });
  const services = createServiceManager({ agentName: name, run: runProgram, clock, environment });
  const activations = createActivations({
    ...{ config, environment, isRoot, clock, logger },
    launch: () => launchSupervisor({ stateDirectory, agentName: name, services, environment, logger }),
    agentUnit: services.agentUnit,
    hasUnit: services.hasUnit,
    readCurrentSystem: machine.readCurrentSystem,
    readCurrentHome: () => readCurrentHome(environment),
    readNames: readTopNames,
    readFailedUnits: services.readFailedUnits,
    platform: machine.system,
    readPlatform,
    findSpecialisation: machine.findSpecialisation,
    resolveSpecialisation,
    readOwnHealthChecks: async () => (healthChecksFile === null ? [] : await readOwnHealthChecks(healthChecksFile)),
    bootClock: systemBootClock,
  });
  return { machine, gcRoots, activations };
}
