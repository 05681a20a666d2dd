/**
 * The agent on a real machine: `createAgent` with websocket, HTTP client, Nix daemon, programs and the machine's own
 * links. Nothing is decided here.
 */
import { createHttpClient } from "../http/client.ts";
import { readNetworkSettings } from "../http/settings.ts";
import type { Logger } from "../log.ts";
import { createCoordinatorCache } from "../nix/cache/download/coordinator-cache.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import type { Clock, Random } from "../runtime.ts";
import { createActivations } from "./activation/activations.ts";
import { launchSupervisor } from "./activation/launch.ts";
import { readRecord } from "./activation/record.ts";
import { type AgentConfig, createAgent } from "./agent.ts";
import { readOwnHealthChecks } from "./health/own-health-checks.ts";
import { createWebSocketDialer } from "./link/websocket.ts";
import { systemBootClock } from "./machine/boot-clock.ts";
import { STORE_PLACES, syncFileSystems } from "./machine/file-systems.ts";
import { createGcRoots } from "./machine/gc-roots.ts";
import { readCurrentHome } from "./machine/home.ts";
import { createMachine, readPlatform, readTopNames } from "./machine/machine.ts";
import { runProgram } from "./machine/process.ts";
import { cleanEnvironment } from "./machine/program-environment.ts";
import { createServiceManager } from "./machine/service-manager.ts";
import { runSmallProgram } from "./machine/small-program.ts";
import { resolveSpecialisation } from "./machine/specialisation.ts";

export type LocalAgentOptions = {
  readonly config: AgentConfig;
  /** The device's own health checks; null when it has none. */
  readonly healthChecksFile: string | null;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Aborted by SIGTERM: the agent says goodbye, lets an activation finish, and this returns. */
  readonly signal: AbortSignal;
  /** Called once it keeps the profile and begins to connect; it may take long until it is connected. */
  readonly onReady: () => void;
  /** Called once it has been told to stop, before it does. */
  readonly onStopping: () => void;
};

/** @throws as `Agent.run`, and as `readOwnHealthChecks` */
export async function runLocalAgent(options: LocalAgentOptions): Promise<void> {
  const { config, environment, clock, random, logger, healthChecksFile } = options;
  const ownHealthChecks = async () => (healthChecksFile === null ? [] : await readOwnHealthChecks(healthChecksFile));
  await ownHealthChecks();
  const programs = cleanEnvironment(environment);
  const gcRoots = createGcRoots({
    agent: config.name,
    isRoot: process.getuid?.() === 0,
    stateDirectory: config.stateDirectory,
    syncStore: () => syncFileSystems({ places: STORE_PLACES, run: runProgram, environment: programs, clock }),
  });
  const machine = createMachine({
    profilePath: config.profilePath,
    environment: programs,
    readType: async () => (await readRecord(config.stateDirectory))?.type ?? null,
    readKept: gcRoots.list,
  });
  const services = createServiceManager({ agentName: config.name, run: runProgram, clock, environment: programs });
  // Its programs end soon and say little.
  const quietServices = createServiceManager({
    agentName: config.name,
    run: runSmallProgram,
    clock,
    environment: programs,
  });
  await using http = createHttpClient({
    userAgent: `nixdeploy-agent/${config.version}`,
    env: environment,
    clock,
    random,
    log: logger,
  });
  const agent = createAgent({
    config: { ...config, healthChecksFile },
    clock,
    random,
    logger,
    machine,
    readFailedUnits: quietServices.readFailedUnits,
    onReady: options.onReady,
    dial: createWebSocketDialer(readNetworkSettings(environment)),
    connectDaemon: ({ signal }) => connectDaemon({ signal, clock, environment }),
    openCache: (welcome, credential) =>
      createCoordinatorCache({
        coordinatorUrl: config.coordinatorUrl,
        cacheName: welcome.cache.name,
        cachePath: welcome.cache.path,
        credential,
        http,
        clock,
        random,
      }),
    activations: createActivations({
      ...{ config, clock, logger },
      environment: programs,
      launch: () =>
        launchSupervisor({
          ...{ stateDirectory: config.stateDirectory, agentName: config.name, services, logger },
          environment: programs,
        }),
      agentUnit: services.agentUnit,
      hasUnit: services.hasUnit,
      readCurrentSystem: machine.readCurrentSystem,
      readCurrentHome: () => readCurrentHome(programs),
      isRoot: process.getuid?.() === 0,
      readNames: readTopNames,
      readFailedUnits: services.readFailedUnits,
      platform: machine.system,
      readPlatform,
      findSpecialisation: machine.findSpecialisation,
      resolveSpecialisation,
      readOwnHealthChecks: ownHealthChecks,
      bootClock: systemBootClock,
    }),
    gcRoots,
  });
  options.signal.addEventListener("abort", options.onStopping, { once: true });
  await agent.run(options.signal);
}
