/**
 * `nixdeploy agent --bootstrap`: an agent in a process of its own, until the machine's system has one (agent/bootstrap.ts).
 *
 * That agent ends with the process that started it, however that ends (a lost SSH connection, `kill -9`): on its own
 * it would hold the locks against the machine's own agent for ever.
 */
import { join } from "node:path";
import { readRecord } from "../agent/activation/record.ts";
import type { AgentConfig } from "../agent/agent.ts";
import { type AgentProcess, runBootstrap } from "../agent/bootstrap.ts";
import { isLocked, tryLockFile } from "../agent/machine/flock.ts";
import { ownProgram, runProgram } from "../agent/machine/process.ts";
import { describeExit } from "../agent/machine/program-exit.ts";
import { NixdeployError } from "../errors.ts";
import type { CommandContext, Environment } from "./command-line/context.ts";
import { formatDuration } from "./command-line/duration.ts";

export const BOOTSTRAP_TIMEOUT_DEFAULT_MS = 30 * 60_000;
export const BOOTSTRAP_TIMEOUT_MAX_MS = 7 * 24 * 60 * 60_000;
/** For its goodbye. */
const MARGIN_MS = 60_000;
/** Names the process that is the bootstrap, to the agent that it starts. */
const PARENT_VARIABLE = "NIXDEPLOY_BOOTSTRAP";
const PARENT_LOOK_MS = 250;

export type BootstrapOptions = {
  readonly config: AgentConfig;
  readonly healthChecksFile: string | null;
  readonly timeoutMs: number;
  readonly context: CommandContext;
};

/** @throws NixdeployError("conflict") when another bootstrap of this agent goes on · as `runBootstrap` */
export async function bootstrapAgent({
  config,
  healthChecksFile,
  timeoutMs,
  context,
}: BootstrapOptions): Promise<void> {
  const { clock, log, signal, env } = context;
  using lock = tryLockFile(join(config.stateDirectory, "bootstrap.lock"), 0o700);
  if (lock === null) {
    throw new NixdeployError("conflict", `cannot begin the bootstrap of ${config.name}: another one goes on`, {
      hint: "Leave it to that one, or stop it first.",
    });
  }
  const words = agentWords(config, healthChecksFile);
  // What keeps the agent from reaching the coordinator stands in its own words.
  const print = (text: string) => context.stderr.write(`${text}\n`);
  await runBootstrap({
    ...{ timeoutMs, clock, log, signal },
    readRecord: () => readRecord(config.stateDirectory),
    isHeld: () => isLocked(join(config.stateDirectory, "lock")),
    startAgent: () =>
      startAgent({ words, env, url: config.coordinatorUrl, maxMs: timeoutMs + MARGIN_MS, clock, print }),
  });
  log.info(`the machine's own agent ${config.name} has taken over`);
}

/** The same agent, from its flags. */
function agentWords(config: AgentConfig, healthChecksFile: string | null): readonly string[] {
  const { name, profilePath, stateDirectory, trustedPublicKeys, labels = {}, confirmWindowMs } = config;
  return [
    ...["agent", "--name", name, "--profile", profilePath, "--state-dir", stateDirectory],
    ...trustedPublicKeys.flatMap((key) => ["--trusted-public-key", key]),
    ...Object.entries(labels).flatMap(([key, value]) => ["--label", `${key}=${value}`]),
    ...(confirmWindowMs === undefined ? [] : ["--confirm-window", formatDuration(confirmWindowMs)]),
    ...(healthChecksFile === null ? [] : ["--health-checks", healthChecksFile]),
  ];
}

type StartOptions = Pick<CommandContext, "clock"> & {
  readonly words: readonly string[];
  readonly env: Environment;
  readonly url: string;
  readonly maxMs: number;
  readonly print: (text: string) => Promise<void>;
};

function startAgent({ words, env, url, maxMs, clock, print }: StartOptions): AgentProcess {
  const [command = "", ...before] = ownProgram();
  const stopping = new AbortController();
  let processId: number | null = null;
  const exited = runProgram({
    ...{ command, args: [...before, ...words], clock, deadlineMs: maxMs, stop: stopping.signal },
    environment: { ...inheritable(env), NIXDEPLOY_URL: url, [PARENT_VARIABLE]: String(process.pid) },
    onLine: (_, text) => print(text),
    onStarted: (id) => {
      processId = id;
    },
  });
  return {
    exited: exited.then((exit) => ({ code: exit.kind === "exited" ? exit.code : null, why: describeExit(exit) })),
    kill() {
      try {
        if (processId !== null) process.kill(processId, "SIGKILL");
      } catch {
        // It has ended already.
      }
    },
    stop: () => stopping.abort(new Error("the bootstrap ends")),
  };
}

/** All of it: it is the agent. Its service manager is told by us alone. */
function inheritable(env: Environment): Record<string, string> {
  const kept = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
  return Object.fromEntries(kept.filter(([name]) => name !== "NOTIFY_SOCKET"));
}

/** Whether a bootstrap has started this agent. */
export function isOfBootstrap(env: Environment): boolean {
  return env[PARENT_VARIABLE] !== undefined;
}

/**
 * For such an agent: until it is disposed of, ends this process as soon as the bootstrap is gone; at once, which an agent
 * must stand at any moment.
 */
export function endWithBootstrap({ env, clock, log }: Pick<CommandContext, "env" | "clock" | "log">): AsyncDisposable {
  const over = new AbortController();
  const watch = async () => {
    for (;;) {
      await clock.sleep(PARENT_LOOK_MS, over.signal);
      if (String(process.ppid) === env[PARENT_VARIABLE]) continue;
      log.warn("the bootstrap that started this agent is gone, so the agent ends, too");
      process.kill(process.pid, "SIGKILL");
    }
  };
  const watching = watch().catch(() => {
    // The agent ends by itself.
  });
  return {
    async [Symbol.asyncDispose]() {
      over.abort(new Error("the agent ends"));
      await watching;
    },
  };
}
