/**
 * Starts a supervisor that outlives the agent: `nixdeploy supervise --state-dir …`, run from the program that runs now.
 *
 * Where systemd is PID 1 and shares our mounts: a transient unit of its own, outside the agent's cgroup, started again
 * by systemd when it dies. Elsewhere (containers, tests): a process in a session of its own; when it dies, the agent's
 * next look starts another one.
 */
import { readlink } from "node:fs/promises";
import { NixdeployError } from "../../errors.ts";
import type { AgentName } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import { type RunProgram, startDetached } from "../process.ts";
import { isMissing } from "../system-error.ts";
import { describeExit, isSuccess } from "./driver.ts";

export type LaunchOptions = {
  readonly stateDirectory: string;
  readonly agentName: AgentName;
  readonly environment: Readonly<Record<string, string>>;
  readonly run: RunProgram;
  readonly clock: Clock;
};

const SYSTEMD_RUN_MAX_MS = 30_000;

export async function launchSupervisor(options: LaunchOptions): Promise<void> {
  const { environment, run, clock } = options;
  const command = [process.execPath, ...programArguments(), "supervise", "--state-dir", options.stateDirectory];
  if (!(await hasSystemd())) return startDetached({ command, environment });
  const unit = `nixdeploy-activation-${options.agentName}`;
  const properties = ["Restart=on-failure", "RestartSec=1", "KillMode=mixed"];
  const args = [
    ...["--quiet", "--collect", `--unit=${unit}`, "--service-type=exec"],
    ...properties.map((property) => `--property=${property}`),
    ...Object.keys(environment).map((name) => `--setenv=${name}`),
    ...["--", ...command],
  ];
  const lines: string[] = [];
  const exit = await run({
    ...{ command: "systemd-run", args, environment, clock },
    deadlineMs: SYSTEMD_RUN_MAX_MS,
    onLine: async (_stream, text) => void lines.push(text),
  });
  if (isSuccess(exit)) return;
  throw new NixdeployError(
    "host",
    `cannot start the unit ${unit}: systemd-run ${describeExit(exit)} ${lines.join(" ")}`,
  );
}

/** PID 1 is systemd, and what it starts sees the files that we see. */
export async function hasSystemd(): Promise<boolean> {
  try {
    const [own, first] = [await readlink("/proc/self/ns/mnt"), await readlink("/proc/1/ns/mnt")];
    if (own !== first) return false;
    await readlink("/proc/1/exe");
    return await Bun.file("/run/systemd/system")
      .stat()
      .then((entry) => entry.isDirectory());
  } catch (error) {
    if (isMissing(error) || (error instanceof Error && "code" in error && error.code === "EACCES")) return false;
    throw error;
  }
}

/** What comes before our own arguments: the script, when we run from a checkout. */
function programArguments(): readonly string[] {
  return Bun.main.startsWith("/$bunfs/") ? [] : [Bun.main];
}
