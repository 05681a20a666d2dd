/**
 * What is asked of systemd, and what it is told to run. Where it does not run, there is nothing to ask.
 *
 * It is used where it is PID 1 and sees the files that we see: in its own mount namespace, or as the main process of one
 * of its units, which may have a namespace of its own (`ProtectSystem=` and the like).
 */
import { readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import type { AgentName } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { RunProgram } from "../process.ts";
import { hasCode, isMissing } from "../system-error.ts";
import { describeExit, isSuccess } from "./driver.ts";

export type ServiceManager = {
  /** By name; null where systemd does not run. */
  readFailedUnits(): Promise<readonly string[] | null>;
  /** By unit, its ActiveState, or "not-found"; null where systemd does not run. @throws NixdeployError("host") */
  readUnitStates(units: readonly string[], maxMs: number): Promise<ReadonlyMap<string, string> | null>;
  /** However often it was started before. @throws NixdeployError("host") when it does not come up */
  restartUnit(unit: string): Promise<void>;
  /** The unit whose main process we are, else the one our modules make; null where systemd does not run. */
  agentUnit(): Promise<string | null>;
  /** Whether a NixOS system has this unit. */
  hasUnit(system: StorePath, unit: string): Promise<boolean>;
  /** The id of a unit's main process; null when it has none. */
  mainProcess(unit: string): Promise<number | null>;
  /** Whether `startTransient` can work: systemd runs, and we are root. */
  mayStartUnits(): Promise<boolean>;
  /** @throws NixdeployError("host") */
  startTransient(unit: TransientUnit): Promise<void>;
  /** Those that are there. */
  stopUnits(units: readonly string[]): Promise<void>;
};

/** A unit of which nothing is left when it has ended, or at the next boot. */
export type TransientUnit = {
  /** Without its suffix. */
  readonly name: string;
  readonly command: readonly string[];
  /** Not at once, but by a timer of the same name, after so long; and again, as long as the timer is not stopped. */
  readonly timer?: { readonly afterMs: number; readonly againAfterMs: number };
};

const SYSTEMCTL_MAX_MS = 60_000;
const RESTART_MAX_MS = 120_000;
const SYSTEM_UNITS = "etc/systemd/system";
/** Started again as often as it dies; when it ends by itself, the program it runs ends with it. */
const SERVICE_PROPERTIES = ["Restart=on-failure", "RestartSec=1", "StartLimitIntervalSec=0", "KillMode=mixed"] as const;
const TIMER_ACCURACY = "AccuracySec=200ms";

type Systemctl = (program: "systemctl" | "systemd-run", args: readonly string[], maxMs?: number) => Promise<string[]>;

export function createServiceManager(deps: {
  readonly agentName: AgentName;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
}): ServiceManager {
  const systemctl: Systemctl = async (command, args, deadlineMs = SYSTEMCTL_MAX_MS) => {
    const lines: string[] = [];
    const errors: string[] = [];
    const exit = await deps.run({
      ...deps,
      ...{ command, args, deadlineMs },
      onLine: async (stream, text) => void (stream === "out" ? lines : errors).push(text),
    });
    if (isSuccess(exit)) return lines;
    throw new NixdeployError("host", `${command} ${args.join(" ")} ${describeExit(exit)} ${errors.join(" ")}`.trim());
  };
  const readProperty = async (unit: string, property: string) =>
    (await systemctl("systemctl", ["show", `--property=${property}`, "--value", unit])).join("").trim();
  const mainProcess = async (unit: string) => {
    const id = Number(await readProperty(unit, "MainPID"));
    return id > 0 ? id : null;
  };
  /** The unit whose main process we are. */
  const ownUnit = async () => {
    const unit = await readOwnService();
    return unit !== null && (await mainProcess(unit)) === process.pid ? unit : null;
  };
  let isKnownUsed = false;
  const isUsed = async () => {
    // Once it is so, it stays so as long as we live.
    isKnownUsed ||= (await isBooted()) && ((await sharesMounts()) || (await ownUnit()) !== null);
    return isKnownUsed;
  };
  return {
    mainProcess,
    async readFailedUnits() {
      return (await isUsed()) ? parseFailedUnits(await systemctl("systemctl", LIST_FAILED)) : null;
    },
    async readUnitStates(units, maxMs) {
      if (!(await isUsed())) return null;
      const lines = await systemctl("systemctl", ["show", `--property=${STATE_PROPERTIES}`, "--", ...units], maxMs);
      return parseUnitStates(units, lines);
    },
    async restartUnit(unit) {
      await systemctl("systemctl", ["reset-failed", unit]).catch(() => {
        // It only forgets how often the unit was started; one that is not loaded has nothing to forget.
      });
      await systemctl("systemctl", ["restart", unit], RESTART_MAX_MS);
    },
    async agentUnit() {
      if (!(await isUsed())) return null;
      return (await ownUnit()) ?? `nixdeploy-agent-${deps.agentName}.service`;
    },
    hasUnit: (system, unit) => exists(join(system, SYSTEM_UNITS, unit)),
    mayStartUnits: async () => process.getuid?.() === 0 && (await isUsed()),
    async startTransient(unit) {
      const service = await readProperty(`${unit.name}.service`, "ActiveState");
      // Running, or about to be started again: systemd would refuse another one of its name.
      if (unit.timer === undefined && service !== "inactive" && service !== "failed") return;
      await systemctl("systemd-run", planTransient(unit, Object.keys(deps.environment)));
    },
    async stopUnits(units) {
      await systemctl("systemctl", ["stop", ...units]).catch(() => {
        // Units that are not there count as an error; one that could not be stopped finds nothing to do when it runs.
      });
    },
  };
}

const LIST_FAILED = ["list-units", "--state=failed", "--plain", "--no-legend", "--all"] as const;

const STATE_PROPERTIES = "LoadState,ActiveState";

/** Of `systemctl show`: lines KEY=VALUE, an empty one between units, in the order in which they were asked for. */
export function parseUnitStates(units: readonly string[], lines: readonly string[]): ReadonlyMap<string, string> {
  const blocks = lines.join("\n").split(/\n{2,}/);
  return new Map(
    units.map((unit, index) => {
      const values = new Map((blocks[index] ?? "").split("\n").map((line) => splitSetting(line)));
      const isThere = values.get("LoadState") !== "not-found";
      return [unit, isThere ? (values.get("ActiveState") ?? "unknown") : "not-found"];
    }),
  );
}

function splitSetting(line: string): [key: string, value: string] {
  const [key = "", ...value] = line.trim().split("=");
  return [key, value.join("=")];
}

/** Without those that the running system does not have: systemd remembers them from one before. */
function parseFailedUnits(lines: readonly string[]): string[] {
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([name = "", load]) => name !== "" && load !== "not-found")
    .map(([name = ""]) => name);
}

function planTransient({ name, command, timer }: TransientUnit, environmentNames: readonly string[]): string[] {
  const timing =
    timer === undefined
      ? []
      : [
          `--on-active=${Math.ceil(timer.afterMs)}ms`,
          ...[`OnUnitInactiveSec=${timer.againAfterMs}ms`, TIMER_ACCURACY].map((text) => `--timer-property=${text}`),
        ];
  return [
    ...["--quiet", "--collect", `--unit=${name}`, ...timing, "--service-type=exec"],
    ...SERVICE_PROPERTIES.map((property) => `--property=${property}`),
    ...environmentNames.map((variable) => `--setenv=${variable}`),
    ...["--", ...command],
  ];
}

/** sd_booted(3), and PID 1 is it: not a container that only sees the directory. */
async function isBooted(): Promise<boolean> {
  try {
    return (
      (await readFile("/proc/1/comm", "utf8")).trim() === "systemd" && (await stat("/run/systemd/system")).isDirectory()
    );
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** For root alone: others may not look, and then it is not known. */
async function sharesMounts(): Promise<boolean> {
  try {
    return (await readlink("/proc/self/ns/mnt")) === (await readlink("/proc/1/ns/mnt"));
  } catch (error) {
    if (isMissing(error) || hasCode(error, "EACCES")) return false;
    throw error;
  }
}

/** From our cgroup: the innermost service of the system, if we run in one. */
async function readOwnService(): Promise<string | null> {
  const groups = await readFile("/proc/self/cgroup", "utf8");
  for (const line of groups.split("\n")) {
    const unit = line.split("/").at(-1) ?? "";
    if (unit.endsWith(".service") && !line.includes("/user@")) return unit;
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
