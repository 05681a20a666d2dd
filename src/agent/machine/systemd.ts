/**
 * What is asked of systemd, and what it is told to run. Where it does not run, there is nothing to ask.
 *
 * It is used where it is PID 1 and sees the files that we see: in its own mount namespace, or as the main process of one
 * of its units, which may have a namespace of its own (`ProtectSystem=` and the like). A main process of a unit of a user's
 * own manager (`systemd --user`) asks that one instead: it is who runs the agent, and who restarts it when Home Manager
 * has changed its unit.
 */
import { readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import type { AgentName } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import type { SystemType } from "./detect.ts";
import { exists } from "./look.ts";
import type { RunProgram } from "./process.ts";
import { describeExit, isSuccess } from "./program-exit.ts";
import { hasCode, isMissing } from "./system-error.ts";

export type ServiceManager = {
  /** By name; null where systemd does not run. */
  readFailedUnits(): Promise<readonly string[] | null>;
  /** By unit, its ActiveState, or "not-found"; null where systemd does not run. @throws NixdeployError("host") */
  readUnitStates(units: readonly string[], maxMs: number): Promise<ReadonlyMap<string, string> | null>;
  /** However often it was started before. @throws NixdeployError("host") when it does not come up */
  restartUnit(unit: string): Promise<void>;
  /**
   * The unit whose main process we are, else the one our modules make; null where no manager runs, or the one that runs
   * the agent takes no units from versions of this type.
   */
  agentUnit(type: SystemType): Promise<string | null>;
  /** Whether a version has this unit, for the manager that runs the agent. */
  hasUnit(version: string, unit: string): Promise<boolean>;
  /** The id of a unit's main process; null when it has none. */
  mainProcess(unit: string): Promise<number | null>;
  /** Whether `startTransient` can work: the manager is ours to command. */
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
type Scope = "system" | "user";
/** Where versions of a type keep the units of a manager; it takes none from other types. */
const UNIT_DIRECTORIES: Readonly<Record<Scope, Readonly<Partial<Record<SystemType, string>>>>> = {
  system: { nixos: "etc/systemd/system" },
  user: { "home-manager": "home-files/.config/systemd/user", plain: "share/systemd/user" },
};
/** Started again as often as it dies; when it ends by itself, the program it runs ends with it. */
const SERVICE_PROPERTIES = ["Restart=on-failure", "RestartSec=1", "StartLimitIntervalSec=0", "KillMode=mixed"] as const;
const TIMER_ACCURACY = "AccuracySec=200ms";

type Systemctl = (program: "systemctl" | "systemd-run", args: readonly string[], maxMs?: number) => Promise<string[]>;

export type ServiceManagerDeps = {
  readonly agentName: AgentName;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
};

export function createSystemd(deps: ServiceManagerDeps): ServiceManager {
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
  const scoped = (scope: Scope, args: readonly string[]) => (scope === "user" ? ["--user", ...args] : args);
  const question = (args: readonly string[]) => askAgain(() => systemctl("systemctl", args), deps.clock);
  const readProperty = async (scope: Scope, unit: string, property: string) =>
    (await question(scoped(scope, ["show", `--property=${property}`, "--value", unit]))).join("").trim();
  const readMainProcess = async (scope: Scope, unit: string) => {
    const id = Number(await readProperty(scope, unit, "MainPID"));
    return id > 0 ? id : null;
  };
  /** The unit whose main process we are. */
  const readOwnUnit = async () => {
    const own = parseOwnService(await readFile("/proc/self/cgroup", "utf8"));
    return own !== null && (await readMainProcess(own.scope, own.unit)) === process.pid ? own : null;
  };
  const findScope = async (): Promise<Scope | null> => {
    if (!(await isBooted())) return null;
    return (await readOwnUnit())?.scope ?? ((await sharesMounts()) ? "system" : null);
  };
  let known: Scope | null = null;
  /** Null where no manager is used. Once one is, it stays so as long as we live. */
  const readScope = async () => {
    known ??= await findScope();
    return known;
  };
  const requireScope = async () => (await readScope()) ?? "system";
  return {
    mainProcess: async (unit) => await readMainProcess(await requireScope(), unit),
    async readFailedUnits() {
      const scope = await readScope();
      return scope === null ? null : parseFailedUnits(await question(scoped(scope, LIST_FAILED)));
    },
    async readUnitStates(units, maxMs) {
      const scope = await readScope();
      if (scope === null) return null;
      const args = ["show", `--property=${STATE_PROPERTIES}`, "--", ...units];
      const lines = await systemctl("systemctl", scoped(scope, args), maxMs);
      return parseUnitStates(units, lines);
    },
    async restartUnit(unit) {
      const scope = await requireScope();
      // The scripts of systems and homes do it themselves; a plain profile has none.
      if (scope === "user") await systemctl("systemctl", ["--user", "daemon-reload"]);
      await systemctl("systemctl", scoped(scope, ["reset-failed", unit])).catch(() => {
        // It only forgets how often the unit was started; one that is not loaded has nothing to forget.
      });
      await systemctl("systemctl", scoped(scope, ["restart", unit]), RESTART_MAX_MS);
    },
    async agentUnit(type) {
      const scope = await readScope();
      if (scope === null || UNIT_DIRECTORIES[scope][type] === undefined) return null;
      return (await readOwnUnit())?.unit ?? `nixdeploy-agent-${deps.agentName}.service`;
    },
    async hasUnit(version, unit) {
      const directories = Object.values(UNIT_DIRECTORIES[await requireScope()]);
      const found = await Promise.all(directories.map((directory) => exists(join(version, directory, unit))));
      return found.includes(true);
    },
    async mayStartUnits() {
      const scope = await readScope();
      return scope === "user" || (scope === "system" && process.getuid?.() === 0);
    },
    async startTransient(unit) {
      const scope = await requireScope();
      const service = await readProperty(scope, `${unit.name}.service`, "ActiveState");
      // Running, or about to be started again: systemd would refuse another one of its name.
      if (unit.timer === undefined && service !== "inactive" && service !== "failed") return;
      await systemctl("systemd-run", scoped(scope, planTransient(unit, Object.keys(deps.environment))));
    },
    async stopUnits(units) {
      await systemctl("systemctl", scoped(await requireScope(), ["stop", ...units])).catch(() => {
        // Units that are not there count as an error; one that could not be stopped finds nothing to do when it runs.
      });
    },
  };
}

const ASK_AGAIN_MAX_MS = 10_000;
const ASK_AGAIN_PAUSE_MS = 500;
/** What waits so briefly need not be told to stop. */
const UNSTOPPED = new AbortController().signal;

/** A question is put again for a while: a switch may start the manager and its bus anew, and they do not answer then. */
export async function askAgain<Answer>(ask: () => Promise<Answer>, clock: Clock): Promise<Answer> {
  const untilMs = clock.monotonicMs() + ASK_AGAIN_MAX_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (clock.monotonicMs() >= untilMs) throw error;
      await clock.sleep(ASK_AGAIN_PAUSE_MS, UNSTOPPED);
    }
  }
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

/** From our cgroup: the innermost service that we run in, and whose it is; null for none. Pure. */
export function parseOwnService(groups: string): { readonly unit: string; readonly scope: Scope } | null {
  // Of cgroups of version 1 only some lines go as far as the unit of a user's manager.
  const paths = groups.split("\n").map((line) => line.split(":").slice(2).join(":"));
  for (const path of paths) {
    const unit = /\/user@\d+\.service\/(?:.*\/)?([^/]+\.service)$/.exec(path)?.[1];
    if (unit !== undefined) return { unit, scope: "user" };
  }
  for (const path of paths) {
    const unit = path.split("/").at(-1) ?? "";
    if (unit.endsWith(".service") && !path.includes("/user@")) return { unit, scope: "system" };
  }
  return null;
}
