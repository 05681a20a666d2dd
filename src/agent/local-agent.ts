/**
 * The agent on a real machine: `createAgent` with websocket, HTTP client, Nix daemon, programs and the machine's own
 * links. Nothing is decided here.
 */
import { createHttpClient } from "../http/client.ts";
import { readNetworkSettings } from "../http/settings.ts";
import type { Logger } from "../log.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import type { Clock, Random } from "../runtime.ts";
import { type AgentConfig, createAgent } from "./agent.ts";
import { openCaches } from "./caches.ts";
import { readOwnHealthChecks } from "./health/own-health-checks.ts";
import { createWebSocketDialer } from "./link/websocket.ts";
import { cleanEnvironment } from "./machine/program-environment.ts";
import { keepProgramPagesFew } from "./machine/program-pages.ts";
import { createServiceManager } from "./machine/service-manager.ts";
import { runSmallProgram } from "./machine/small-program.ts";
import { createThisMachine } from "./this-machine.ts";

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
  // Its faults are told at the start; it is read again for each activation.
  if (healthChecksFile !== null) await readOwnHealthChecks(healthChecksFile);
  const programs = cleanEnvironment(environment);
  const { machine, gcRoots, activations } = createThisMachine({
    ...{ config, healthChecksFile, clock, logger },
    environment: programs,
  });
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
    openCaches: (welcome, credential) => {
      const { coordinatorUrl } = config;
      return openCaches(welcome, { coordinatorUrl, credential, http, clock, random });
    },
    activations,
    gcRoots,
  });
  options.signal.addEventListener("abort", options.onStopping, { once: true });
  const over = new AbortController();
  const resting = keepProgramPagesFew({ clock, logger, signal: over.signal });
  try {
    await agent.run(options.signal);
  } finally {
    over.abort(new Error("the agent has ended"));
    await resting;
  }
}
