/** An agent of this machine, by its state directory: its key, what it has pinned, its journals and its units. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { undoUnitOf } from "../agent/activation/launch.ts";
import { readRecord } from "../agent/activation/record.ts";
import type { KnownAgent } from "../agent/agent-file.ts";
import { listDeployments } from "../agent/journal/deployment-folder.ts";
import { readEnrolment } from "../agent/link/enrolment.ts";
import { findKey } from "../agent/link/identity.ts";
import { isLocked } from "../agent/machine/flock.ts";
import { exists, mayWrite } from "../agent/machine/look.ts";
import { cleanEnvironment } from "../agent/machine/program-environment.ts";
import { runSmallProgram } from "../agent/machine/small-program.ts";
import { formatCount } from "../quantity.ts";
import type { Clock } from "../runtime.ts";
import type { SeenCache } from "./coordinator-checks.ts";
import { type Check, type Finding, fault, ok, skipped, warning } from "./finding.ts";
import { judgeAgentUnit, judgePins, judgeSecrecy, judgeUndoUnit, type SeenUnit } from "./judge-machine.ts";

export type AgentLook = {
  readonly agent: KnownAgent;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** The address that commands here use; null: none. */
  readonly url: string | null;
  readonly findCache: () => Promise<Pick<SeenCache, "name" | "publicKeys"> | null>;
};

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";

export function createAgentChecks(look: AgentLook): readonly Check[] {
  const { agent } = look;
  const checks: Readonly<Record<string, () => Promise<readonly Finding[]>>> = {
    key: () => lookAtKey(agent),
    state: () => lookAtState(agent),
    enrolment: () => lookAtEnrolment(look),
    journals: () => lookAtJournals(agent),
    units: () => lookAtUnits(look),
  };
  return Object.entries(checks).map(([name, lookAt]) => ({
    group: "agent",
    name: `${agent.name} ${name}`,
    look: lookAt,
  }));
}

async function lookAtKey({ stateDirectory }: KnownAgent): Promise<readonly Finding[]> {
  const key = await findKey(stateDirectory);
  if (key !== null) return [ok(`${key.fingerprint}, for its owner alone`)];
  return [warning(`there is no key in ${stateDirectory} yet`, "The agent makes one at its first start: start it.")];
}

async function lookAtState({ stateDirectory }: KnownAgent): Promise<readonly Finding[]> {
  const { mode, uid } = await stat(stateDirectory);
  const isOwn = uid === process.getuid?.();
  const secrecy = judgeSecrecy(stateDirectory, mode);
  if (!isOwn) return [secrecy, skipped("whether it can be written is for its owner to see: run this as that user")];
  if (await mayWrite(stateDirectory, { whenMissing: false })) return [secrecy];
  const hint = "Remount its file system for writing, and see in the kernel's log why it is read-only.";
  return [secrecy, fault(`${stateDirectory} cannot be written: no deployment can begin`, hint)];
}

async function lookAtEnrolment({ agent, url, findCache }: AgentLook): Promise<readonly Finding[]> {
  const enrolment = await readEnrolment(agent.stateDirectory);
  if (enrolment === null) {
    return [
      warning(
        "no coordinator has admitted it yet",
        "Give it an agent token (NIXDEPLOY_AGENT_TOKEN_FILE) and look at its log.",
      ),
    ];
  }
  const { coordinatorUrl, workspace, pinnedPublicKeys } = enrolment;
  const isElsewhere = url !== null && url !== coordinatorUrl;
  const cache = isElsewhere ? null : await findCache().catch(() => null);
  const isItsCache = cache !== null && cache.name === enrolment.pinnedCache;
  return [
    ok(`admitted to the workspace ${workspace} of ${coordinatorUrl}`),
    judgePins(pinnedPublicKeys, isItsCache ? cache.publicKeys : []),
    ...(isElsewhere
      ? [
          warning(
            `it talks to ${coordinatorUrl}, commands here to ${url}`,
            "Fine when that is meant; else correct NIXDEPLOY_URL.",
          ),
        ]
      : []),
  ];
}

async function lookAtJournals({ stateDirectory }: KnownAgent): Promise<readonly Finding[]> {
  const deployments = await listDeployments(stateDirectory);
  const record = await readRecord(stateDirectory);
  const kept = ok(`${formatCount(deployments.length, "journal")} kept`);
  if (record === null) return [kept];
  const isAtWork = isLocked(join(stateDirectory, "activation.lock"));
  if (isAtWork) return [ok(`it activates ${record.storePath} at this moment (${record.stage})`)];
  const text = `an activation of ${record.storePath} is on record (${record.stage}), and nobody carries it out`;
  return [warning(text, "Start the agent, which finishes or undoes it; `nixdeploy local status` says more.")];
}

async function lookAtUnits({ agent, environment, clock }: AgentLook): Promise<readonly Finding[]> {
  const runs = isLocked(join(agent.stateDirectory, "lock"));
  if (!(await exists("/run/systemd/system"))) {
    return [skipped(`no systemd here; the agent ${runs ? "runs" : "does not run"}`)];
  }
  const scope =
    agent.profilePath.startsWith("/nix/var/nix/profiles/") && !agent.profilePath.includes("/per-user/")
      ? []
      : ["--user"];
  const read = async (unit: string) =>
    await readUnit(unit, { scope, environment: cleanEnvironment(environment), clock });
  const unit = `nixdeploy-agent-${agent.name}.service`;
  const seen = await read(unit);
  if (seen === null) return [skipped("systemd does not answer this user")];
  const isOther = runs && seen.load === "not-found";
  const own = isOther ? ok("the agent runs, by another unit or by hand") : judgeAgentUnit(unit, seen);
  if (agent.profilePath !== SYSTEM_PROFILE) return [own];
  const undoUnit = undoUnitOf(agent.name);
  const undo = await read(undoUnit);
  return undo === null ? [own] : [own, judgeUndoUnit(undoUnit, undo)];
}

const SYSTEMCTL_MAX_MS = 5_000;

/** Null when systemd cannot be asked. */
async function readUnit(
  unit: string,
  how: { readonly scope: readonly string[]; readonly environment: Record<string, string>; readonly clock: Clock },
): Promise<SeenUnit | null> {
  const lines: string[] = [];
  const exit = await runSmallProgram({
    command: "systemctl",
    args: [...how.scope, "show", "--property=LoadState,ActiveState,UnitFileState", unit],
    environment: how.environment,
    deadlineMs: SYSTEMCTL_MAX_MS,
    clock: how.clock,
    onLine: async (stream, text) => {
      if (stream === "out") lines.push(text);
    },
  });
  return exit.kind === "exited" && exit.code === 0 ? parseUnit(lines) : null;
}

/** @param lines of `systemctl show` */
export function parseUnit(lines: readonly string[]): SeenUnit {
  const read = (name: string) => lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";
  return { load: read("LoadState"), active: read("ActiveState"), file: read("UnitFileState") };
}
