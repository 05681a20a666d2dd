/** `nixdeploy agent`: keeps one profile of this device at what the coordinator says. */
import { join, resolve } from "node:path";
import type { AgentConfig } from "../agent/agent.ts";
import { NixdeployError } from "../errors.ts";
import { LABELS_MAX, type Labels, parseLabel } from "../labels.ts";
import { parseAgentName } from "../names.ts";
import { formatPublicKey, parsePublicKey } from "../nix/signing-key.ts";
import { notifyServiceManager } from "../service-notification.ts";
import { rotateKey } from "./agent-rotate-key.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { resolveStateRoot } from "./command-line/directories.ts";
import { readCoordinatorUrl, readToken } from "./command-line/environment.ts";
import { parseProfile, resolveProfile, withoutFormat } from "./local-args.ts";

/**
 * How much later than usual functions are compiled to machine code. An agent waits most of its life; compiling what it
 * runs a few times at its start takes 4 MB that stay. The heavy work of a deployment is native in any case.
 */
const JIT_POLICY = 20;

const WINDOW_MIN_MS = 1_000;
const WINDOW_MAX_MS = 3_600_000;

const run = defineNixdeployCommand({
  name: "agent",
  summary: "Run the agent that keeps a profile of this device up to date",
  details:
    "At its first start it makes a key, and the token admits that key to the workspace; later starts need no token. " +
    "It dials out and needs no open port. Run one agent for each profile.",
  examples: [
    {
      comment: "A NixOS machine, as root",
      command: "NIXDEPLOY_AGENT_TOKEN_FILE=/etc/nixdeploy/token nixdeploy agent --name nuc",
    },
    {
      comment: "The first time, on a machine whose system has no agent yet: ends when it has one",
      command: "nixdeploy agent --name nuc --bootstrap",
    },
    {
      comment: "A profile of your own",
      command: "nixdeploy agent --name nuc-tools --profile tools",
    },
  ],
  args: {
    name: {
      type: "string",
      description: "The name of this agent in its workspace",
      valueHint: "NAME",
      required: true,
      parse: parseAgentName,
    },
    profile: {
      type: "string",
      description: "The profile to keep, a name or an absolute path (default: system for root, else home-manager)",
      valueHint: "PROFILE",
      parse: parseProfile,
    },
    stateDir: {
      type: "string",
      description: "Where its key and its journals are kept",
      valueHint: "DIR",
      parse: (text) => resolve(text),
    },
    trustedPublicKey: {
      type: "string",
      repeatable: true,
      description: "A key that closures may be signed with, instead of those of the first contact",
      valueHint: "NAME:BASE64",
      parse: (text) => withoutFormat(() => formatPublicKey(parsePublicKey(text))),
    },
    label: {
      type: "string",
      repeatable: true,
      description: "A label of this device, to select it by",
      valueHint: "KEY=VALUE",
      parse: parseLabel,
    },
    confirmWindowMs: {
      type: "duration",
      flag: "confirm-window",
      description: "How long a new version may take to prove itself, unless rollout or workspace say (default: 60s)",
    },
    bootstrap: {
      type: "boolean",
      description: "Only until the machine's own agent, which a deployment brings, has taken over",
    },
    timeoutMs: {
      type: "duration",
      flag: "timeout",
      description: "With --bootstrap: how long that may take (default: 30m)",
    },
    healthChecks: {
      type: "string",
      description: "Health checks of this device, besides those of each deployment (JSON)",
      valueHint: "FILE",
      parse: (text) => resolve(text),
    },
  },
  async run({ args, context }) {
    Bun.unsafe.setJITPolicy(JIT_POLICY);
    const labels = readLabels(args.label);
    const { NIXDEPLOY_VERSION } = await import("../version.ts");
    if (args.timeoutMs !== undefined && !args.bootstrap) {
      throw new NixdeployError("usage", "cannot use --timeout without --bootstrap: an agent runs until it is stopped");
    }
    const stateDirectory = args.stateDir ?? join(resolveStateRoot(context.env), "agents", args.name);
    const config: AgentConfig = {
      name: args.name,
      coordinatorUrl: readCoordinatorUrl(context),
      profilePath: resolveProfile(args.profile ?? null, context.env),
      stateDirectory,
      enrolmentToken: await readEnrolmentToken(context, stateDirectory),
      trustedPublicKeys: args.trustedPublicKey,
      version: NIXDEPLOY_VERSION,
      labels,
      ...(args.confirmWindowMs === undefined ? {} : { confirmWindowMs: checkWindow(args.confirmWindowMs) }),
    };
    if (args.bootstrap) {
      const { BOOTSTRAP_TIMEOUT_DEFAULT_MS, BOOTSTRAP_TIMEOUT_MAX_MS, bootstrapAgent } = await import(
        "./agent-bootstrap.ts"
      );
      const timeoutMs = args.timeoutMs ?? BOOTSTRAP_TIMEOUT_DEFAULT_MS;
      if (timeoutMs > BOOTSTRAP_TIMEOUT_MAX_MS) {
        throw new NixdeployError("usage", "cannot use --timeout: a bootstrap takes at most 7d");
      }
      return await bootstrapAgent({ config, healthChecksFile: args.healthChecks ?? null, timeoutMs, context });
    }
    const { endWithBootstrap, isOfBootstrap } = await import("./agent-bootstrap.ts");
    await using _bootstrap = isOfBootstrap(context.env) ? endWithBootstrap(context) : null;
    const { runLocalAgent } = await import("../agent/local-agent.ts");
    await runLocalAgent({
      config,
      healthChecksFile: args.healthChecks ?? null,
      environment: context.env,
      clock: context.clock,
      random: context.random,
      logger: context.log,
      signal: context.signal,
      onReady: () => notifyServiceManager({ state: "ready", environment: context.env, log: context.log }),
      onStopping: () => notifyServiceManager({ state: "stopping", environment: context.env, log: context.log }),
    });
  },
});

export const command = defineNixdeployGroup({
  name: "agent",
  summary: "Run the agent that keeps a profile of this device up to date",
  alone: run,
  commands: [rotateKey],
});

/**
 * The token of the first contact. One that is named and not there stops nobody who was admitted: its file may be gone, or its
 * secret withdrawn, and an agent that does not start for that is one that cannot prove the system it is in.
 * @throws NixdeployError "usage"
 */
async function readEnrolmentToken({ env, log }: CommandContext, stateDirectory: string): Promise<string | null> {
  try {
    return await readToken(env, "agent");
  } catch (error) {
    if (!(error instanceof NixdeployError)) throw error;
    const { readEnrolment } = await import("../agent/link/enrolment.ts");
    if ((await readEnrolment(stateDirectory)) === null) throw error;
    log.info(`${error.message}; it is not needed: this agent was admitted before`);
    return null;
  }
}

/** As long as a rollout may ask for, too. @throws NixdeployError "usage" */
function checkWindow(windowMs: number): number {
  if (windowMs >= WINDOW_MIN_MS && windowMs <= WINDOW_MAX_MS) return windowMs;
  throw new NixdeployError("usage", "cannot use --confirm-window: it must be from 1s to 1h");
}

/** @throws NixdeployError "usage" */
function readLabels(given: readonly { readonly key: string; readonly value: string }[]): Labels {
  const labels = new Map(given.map(({ key, value }) => [key, value]));
  if (labels.size < given.length) throw new NixdeployError("usage", "cannot run the agent: a label is given twice");
  if (labels.size > LABELS_MAX) {
    throw new NixdeployError("usage", `cannot run the agent: it has more than ${LABELS_MAX} labels`);
  }
  return Object.fromEntries(labels);
}
