/** The supervisor on a real machine: `superviseActivation` with programs, links, systemd and the agent's own key. */
import { NixdeployError } from "../errors.ts";
import { createHttpClient } from "../http/client.ts";
import { readNetworkSettings } from "../http/settings.ts";
import type { Logger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import { readBootTrial } from "./activation/boot/boot-trial.ts";
import { findBootLoader } from "./activation/boot/find-boot-loader.ts";
import { createDeadline } from "./activation/launch.ts";
import type { ActivationRecord } from "./activation/record.ts";
import { readRecord, removeRecord } from "./activation/record.ts";
import { type SuperviseEnd, superviseActivation } from "./activation/supervise.ts";
import { readInhibitors } from "./activation/types/inhibitors.ts";
import { deliver } from "./deliver.ts";
import { createHealthSenses, withoutProxyToThisMachine } from "./health/health-senses.ts";
import { loadKeys } from "./link/identity.ts";
import type { LoginResult, Proof } from "./link/login.ts";
import { loginWithKeys } from "./link/login-with-keys.ts";
import { createWebSocketDialer } from "./link/websocket.ts";
import { systemBootClock } from "./machine/boot-clock.ts";
import { listBootDifferences } from "./machine/kernel.ts";
import { createMachine, type Machine, readTopNames } from "./machine/machine.ts";
import { runProgram } from "./machine/process.ts";
import { readProfile } from "./machine/profile-link.ts";
import { cleanEnvironment } from "./machine/program-environment.ts";
import { createServiceManager } from "./machine/service-manager.ts";

export type LocalSupervisorOptions = {
  readonly stateDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

/** @throws NixdeployError("host") when the record cannot be read · the signal's reason */
export async function runLocalSupervisor(options: LocalSupervisorOptions): Promise<SuperviseEnd> {
  const { stateDirectory, clock, environment } = options;
  const record = (await readRecord(stateDirectory)) ?? (await readBootTrial(stateDirectory));
  if (record === null) return "nothing-to-do";
  const machine = machineOf(record);
  const services = createServiceManager({
    ...{ agentName: record.agentName, run: runProgram, clock },
    environment: cleanEnvironment(environment),
  });
  const createHttp = () =>
    createHttpClient({
      userAgent: `nixdeploy-supervisor/${NIXDEPLOY_VERSION}`,
      env: withoutProxyToThisMachine(environment),
      ...{ clock, random: options.random, log: options.logger },
    });
  const end = await superviseActivation({
    ...options,
    run: runProgram,
    bootClock: systemBootClock,
    readProfilePath: async (path) => (await readProfile(path)).storePath,
    readCurrentSystem: machine.readCurrentSystem,
    boot: {
      readBootedSystem: async () => (await machine.readState(null)).bootedPath,
      readUnproved: (system) => listBootDifferences(system),
      readInhibitors,
      findBootLoader: (run) => findBootLoader({ run, clock, environment: cleanEnvironment(environment) }),
    },
    readNames: readTopNames,
    readFailedUnits: services.readFailedUnits,
    hasUnit: services.hasUnit,
    restartUnit: services.restartUnit,
    mainProcess: services.mainProcess,
    healthSenses: createHealthSenses({ services, createHttp }),
    deadline: await createDeadline({ services, stateDirectory, agentName: record.agentName }),
    loginAsSupervisor: (current, signal) => loginAsSupervisor(current, { ...options, signal }),
  });
  if (end !== "somebody-else-does") await deliverForRemovedAgent(options);
  return end;
}

/** Whoever was killed on it is followed by another one, which finds nothing else to do. */
async function deliverForRemovedAgent(options: LocalSupervisorOptions): Promise<void> {
  const { stateDirectory, logger } = options;
  const record = await readRecord(stateDirectory);
  const isLive = record?.outcome === "succeeded" || record?.outcome === "degraded";
  if (record?.removedAgentUnit === undefined || record.stage !== "finished" || !isLive) return;
  const { deploymentId } = record;
  const end = await deliver({ ...options, deploymentId, login: (signal) => loginFor(record, { ...options, signal }) });
  if (end === "delivered") return await removeRecord(stateDirectory);
  if (end === "an-agent-does") return;
  logger.error(`the outcome was not delivered: it stays in ${stateDirectory}, for the next agent that runs there`);
}

function machineOf({ profilePath, environment, type, storePath }: ActivationRecord): Machine {
  return createMachine({
    ...{ profilePath, environment },
    readType: async () => type,
    readKept: async () => [storePath],
  });
}

/** A login of its own, beside the agent's connection, only to prove that the coordinator can be reached. */
async function loginAsSupervisor(record: ActivationRecord, options: LocalSupervisorOptions): Promise<boolean> {
  const { deploymentId } = record;
  const result = await loginFor(record, options, { deploymentId, by: "supervisor" });
  if (result.kind === "refused") {
    throw new NixdeployError("denied", `the coordinator refuses the login: ${result.refusal.message}`);
  }
  result.socket.close();
  return result.welcome.proved === deploymentId;
}

/** With the agent's key. */
async function loginFor(
  record: ActivationRecord,
  options: LocalSupervisorOptions,
  proof: Proof | null = null,
): Promise<LoginResult> {
  const machine = machineOf(record);
  return await loginWithKeys({
    ...options,
    coordinatorUrl: record.coordinatorUrl,
    name: record.agentName,
    keys: await loadKeys(options),
    offerNext: false,
    enrolmentToken: null,
    readFacts: async () => ({
      agentVersion: NIXDEPLOY_VERSION,
      system: machine.system,
      hostName: machine.hostName,
      nixVersion: null,
      profile: record.profilePath,
      state: await machine.readState(record.deploymentId),
    }),
    readProof: async () => proof,
    dial: createWebSocketDialer(readNetworkSettings(options.environment)),
  });
}
