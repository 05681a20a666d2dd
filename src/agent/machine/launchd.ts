/**
 * launchd in the place of systemd (`systemd.ts`), on macOS: root's agents are daemons of the domain `system`, anybody
 * else's are agents of their own domain, `gui/UID`. A unit is a job's label.
 *
 * It has no transient units: a supervisor runs in a session of its own, which a job that ends leaves alone (launchd.plist(5),
 * AbandonProcessGroup: it kills the job's process group). It does not tell which jobs failed, either.
 *
 * Made from launchctl(1), launchd.plist(5), nix-darwin `modules/launchd` and home-manager `modules/launchd`; it never met a
 * real Mac.
 */
import { join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import type { SystemType } from "./detect.ts";
import { exists } from "./look.ts";
import type { ProgramExit } from "./process.ts";
import { describeExit, isSuccess } from "./program-exit.ts";
import type { ServiceManager, ServiceManagerDeps } from "./systemd.ts";

/** Where versions of a type keep their jobs. */
const JOB_DIRECTORIES: Readonly<Partial<Record<SystemType, string>>> = {
  darwin: "Library/LaunchDaemons",
  "home-manager": "LaunchAgents",
};
const LAUNCHCTL_MAX_MS = 60_000;

export type LaunchdDeps = ServiceManagerDeps & {
  /** Null for root. */
  readonly userId: number | null;
  readonly processId: number;
};

export function createLaunchd(deps: LaunchdDeps): ServiceManager {
  const { userId } = deps;
  const domain = userId === null ? "system" : `gui/${userId}`;
  const installed =
    userId === null ? "/Library/LaunchDaemons" : join(deps.environment["HOME"] ?? "/", "Library/LaunchAgents");
  const launchctl = async (args: readonly string[]) => {
    const lines: string[] = [];
    const exit = await deps.run({
      ...deps,
      ...{ command: "/bin/launchctl", args, deadlineMs: LAUNCHCTL_MAX_MS },
      onLine: async (_stream, text) => void lines.push(text),
    });
    return { exit, lines };
  };
  const mainProcess = async (label: string) => {
    const { exit, lines } = await launchctl(["print", `${domain}/${label}`]);
    return isSuccess(exit) ? parseProcessId(lines) : null;
  };
  /** The label of the job whose main process we are. */
  const ownLabel = async () => {
    const label = deps.environment["XPC_SERVICE_NAME"] ?? "0";
    return label !== "0" && (await mainProcess(label)) === deps.processId ? label : null;
  };
  const restartUnit = async (label: string) => {
    const kicked = await launchctl(["kickstart", "-k", `${domain}/${label}`]);
    if (isSuccess(kicked.exit)) return;
    // Not loaded: a script that was interrupted has unloaded it, or never loaded it.
    const loaded = await launchctl(["bootstrap", domain, join(installed, `${label}.plist`)]);
    const started = await launchctl(["kickstart", `${domain}/${label}`]);
    if (!isSuccess(started.exit)) throw describeFailure(label, [kicked, loaded, started]);
  };
  return {
    mainProcess,
    restartUnit,
    readFailedUnits: async () => null,
    readUnitStates: async () => null,
    async agentUnit(type) {
      const isOurs = type === (userId === null ? "darwin" : "home-manager");
      if (!isOurs) return null;
      // The name that our module for nix-darwin writes; homes get the agent's unit only from where it runs already.
      return (await ownLabel()) ?? (userId === null ? `org.nixos.nixdeploy-agent-${deps.agentName}` : null);
    },
    async hasUnit(version, label) {
      const directories = Object.values(JOB_DIRECTORIES);
      const found = await Promise.all(directories.map((name) => exists(join(version, name, `${label}.plist`))));
      return found.includes(true);
    },
    mayStartUnits: async () => false,
    async startTransient({ name }) {
      throw new NixdeployError("host", `cannot start ${name}: launchd has no transient units`);
    },
    async stopUnits() {
      // None was started.
    },
  };
}

/** From `launchctl print`: "\tpid = 123"; null for a job that does not run. Pure. */
export function parseProcessId(lines: readonly string[]): number | null {
  for (const line of lines) {
    const id = /^\s*pid = (\d+)\s*$/.exec(line)?.[1];
    if (id !== undefined) return Number(id);
  }
  return null;
}

type Run = { readonly exit: ProgramExit; readonly lines: readonly string[] };

function describeFailure(label: string, runs: readonly Run[]): NixdeployError {
  const [kicked, loaded, started] = runs.map(({ exit, lines }) => `${describeExit(exit)} ${lines.join(" ")}`.trim());
  const why = `launchctl kickstart -k ${kicked}; bootstrap ${loaded}; kickstart ${started}`;
  return new NixdeployError("host", `cannot start ${label}: ${why}`);
}
