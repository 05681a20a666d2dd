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
import { mayWrite } from "../agent/machine/look.ts";
import { formatCount } from "../quantity.ts";
import type { Clock } from "../runtime.ts";
import type { SeenCache } from "./coordinator-checks.ts";
import { type Check, type Finding, fault, ok, skipped, warning } from "./finding.ts";
import { judgePins, judgeSecrecy } from "./judge-machine.ts";
import { judgeAgentUnit, judgeUndoUnit } from "./judge-units.ts";
import { findUnit } from "./units.ts";

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
  if (record.stage === "finished") {
    const told = `the activation of ${record.storePath} is over (${record.outcome}), and the coordinator has not taken it yet`;
    return [warning(told, "The agent brings it there: see that it runs, and what its log says of the coordinator.")];
  }
  const text = `an activation of ${record.storePath} is on record (${record.stage}), and nobody carries it out`;
  return [warning(text, "Start the agent, which finishes or undoes it; `nixdeploy local status` says more.")];
}

async function lookAtUnits({ agent, environment, clock }: AgentLook): Promise<readonly Finding[]> {
  const runs = isLocked(join(agent.stateDirectory, "lock"));
  const name = `nixdeploy-agent-${agent.name}.service`;
  const isNamed = new RegExp(`\\s--name[ =]${RegExp.escape(agent.name)}(?:\\s|$)`);
  const own = await findUnit({
    // As the modules call it, and as docs/install.md does.
    names: [name, "nixdeploy-agent.service"],
    isRight: (found, command) => found === name || isNamed.test(command),
    ...{ environment, clock },
  });
  const judged = judgeAgentUnit(own, { name, runs });
  if (agent.profilePath !== SYSTEM_PROFILE || own.kind === "unknown") return [judged];
  const undoUnit = undoUnitOf(agent.name);
  const undo = await findUnit({ names: [undoUnit], isRight: () => true, environment, clock });
  return [judged, judgeUndoUnit(undo, undoUnit)];
}
