/** What systemd tells of units. Where it does not run, there is nothing to tell. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import type { AgentName } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { RunProgram } from "../process.ts";
import { isMissing } from "../system-error.ts";
import { describeExit, isSuccess } from "./driver.ts";
import { hasSystemd } from "./launch.ts";

export type ServiceManager = {
  /** By name; null where systemd does not run. */
  readFailedUnits(): Promise<readonly string[] | null>;
  restartUnit(unit: string): Promise<void>;
  /** The unit whose main process we are, else the one our modules make; null where systemd does not run. */
  agentUnit(): Promise<string | null>;
  hasUnit(system: StorePath, unit: string): Promise<boolean>;
};

const SYSTEMCTL_MAX_MS = 60_000;
const RESTART_MAX_MS = 120_000;
const UNIT_FOLDERS = ["etc/systemd/system", "etc/systemd/system-generators"] as const;

export function createServiceManager(deps: {
  readonly agentName: AgentName;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
}): ServiceManager {
  const systemctl = async (args: readonly string[], deadlineMs: number): Promise<readonly string[]> => {
    const lines: string[] = [];
    const errors: string[] = [];
    const exit = await deps.run({
      ...deps,
      ...{ command: "systemctl", args, deadlineMs },
      onLine: async (stream, text) => void (stream === "out" ? lines : errors).push(text),
    });
    if (isSuccess(exit)) return lines;
    throw new NixdeployError("host", `systemctl ${args.join(" ")} ${describeExit(exit)} ${errors.join(" ")}`.trim());
  };
  return {
    async readFailedUnits() {
      if (!(await hasSystemd())) return null;
      const lines = await systemctl(
        ["list-units", "--state=failed", "--plain", "--no-legend", "--all"],
        SYSTEMCTL_MAX_MS,
      );
      return lines.flatMap((line) => line.trim().split(/\s+/, 1)).filter((name) => name !== "");
    },
    async restartUnit(unit) {
      await systemctl(["restart", unit], RESTART_MAX_MS);
    },
    async agentUnit() {
      if (!(await hasSystemd())) return null;
      return (await ownUnit()) ?? `nixdeploy-agent-${deps.agentName}.service`;
    },
    async hasUnit(system, unit) {
      for (const folder of UNIT_FOLDERS) if (await exists(join(system, folder, unit))) return true;
      return false;
    },
  };
}

/** From our cgroup: the innermost service, if we run in one. */
async function ownUnit(): Promise<string | null> {
  const groups = await readFile("/proc/self/cgroup", "utf8");
  for (const line of groups.split("\n")) {
    const unit = line.split("/").at(-1) ?? "";
    if (unit.endsWith(".service") && !unit.startsWith("user@")) return unit;
  }
  return null;
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}
