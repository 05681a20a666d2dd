/**
 * Takes in deployments that were started on a device, by somebody who sat there (`nixdeploy local`), and that its agent
 * announces: now, or when the coordinator can be reached again. From then on their journals come like all others.
 *
 * They take nobody's place: one running deployment per agent is a rule about what the coordinator starts, while on the
 * device an activation waits for its turn. What was rolled out before they began gives way, as to any newer deployment:
 * queued ones at once, an offer or a fetch is asked to stop. What was rolled out since, by the device's clock, stays.
 */
import type { DeploymentState } from "../../deployment.ts";
import { type AgentId, drawId, parseRolloutId, type RolloutId } from "../../names.ts";
import type { Announcement } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Bus } from "../bus.ts";
import { type AgentRow, findAgent } from "../database/agents.ts";
import {
  countAnnounced,
  findDeployment,
  findUnfinished,
  insertDeployments,
  insertRollout,
} from "../database/deployments.ts";
import { insertEvents } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { FIRST_ATTEMPT, NOTHING_HAPPENED, rolloutEvent } from "./start-rollout.ts";
import { applyEvent, deploymentEvent, RUNNING_TOPIC, rolloutTopic } from "./transition.ts";

export type AnnouncementDeps = {
  readonly writes: WriteQueue;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly random: Random;
};

export type AnnouncementResult =
  /** It exists, perhaps since an earlier announcement; everything up to `through` is stored. */
  | { readonly kind: "taken"; readonly through: number }
  | { readonly kind: "refused"; readonly code: string; readonly message: string };

/** Of one agent within {@link WINDOW_MS}: more than people start, and less than fills a disk. */
export const ANNOUNCED_MAX = 100;
const WINDOW_MS = 24 * 3_600_000;
const BEGUN = "activating" satisfies DeploymentState;

export async function takeAnnouncement(
  deps: AnnouncementDeps,
  { agentId, announced }: { readonly agentId: AgentId; readonly announced: Announcement },
): Promise<AnnouncementResult> {
  const touched = new Set<RolloutId>();
  const result = await deps.writes.write(async (transaction): Promise<AnnouncementResult> => {
    const known = await findDeployment(transaction, announced.deploymentId);
    if (known !== null && known.agent_id === agentId) return { kind: "taken", through: known.journal_through };
    if (known !== null) return { kind: "refused", code: "not-yours", message: "that deployment is another agent's" };
    const agent = await findAgent(transaction, agentId);
    if (agent === null) throw new Error(`there is no agent ${agentId}`);
    const nowMs = deps.clock.nowMs();
    const announcedBefore = await countAnnounced(transaction, {
      agentId,
      sinceMs: nowMs - WINDOW_MS,
      max: ANNOUNCED_MAX,
    });
    if (announcedBefore >= ANNOUNCED_MAX) {
      const message = `this agent has announced ${ANNOUNCED_MAX} deployments of its own within a day`;
      return { kind: "refused", code: "too-many", message };
    }
    // A clock that is ahead must not push aside what is rolled out from now on.
    const startedMs = Math.min(announced.startedAtMs, nowMs);
    for (const rolloutId of await makeRoom(transaction, { agentId, startedMs, nowMs })) touched.add(rolloutId);
    touched.add(await insert(transaction, { deps, agent, announced, startedMs, nowMs }));
    return { kind: "taken", through: 0 };
  });
  for (const rolloutId of touched) deps.bus.publish(rolloutTopic(rolloutId));
  deps.bus.publish(RUNNING_TOPIC);
  return result;
}

async function makeRoom(
  transaction: CoordinatorDatabase,
  { agentId, startedMs, nowMs }: { readonly agentId: AgentId; readonly startedMs: number; readonly nowMs: number },
): Promise<readonly RolloutId[]> {
  const { queued, running } = await findUnfinished(transaction, agentId);
  const older = [queued, running].filter((row) => row !== null).filter((row) => row.created_ms <= startedMs);
  for (const row of older) await applyEvent(transaction, row, { event: { type: "supersede" }, atMs: nowMs });
  return older.map((row) => row.rollout_id);
}

async function insert(
  transaction: CoordinatorDatabase,
  made: {
    readonly deps: AnnouncementDeps;
    readonly agent: AgentRow;
    readonly announced: Announcement;
    readonly startedMs: number;
    readonly nowMs: number;
  },
): Promise<RolloutId> {
  const { agent, announced, startedMs, nowMs } = made;
  const who = announced.startedBy === null ? "" : ` by ${announced.startedBy}`;
  const rolloutId = parseRolloutId(drawId(made.deps.random));
  const rollout = {
    id: rolloutId,
    workspace_id: agent.workspace_id,
    created_ms: nowMs,
    token_id: null,
    description: `started on the device${who}`,
    origin: JSON.stringify(announced.startedBy === null ? {} : { actor: announced.startedBy }),
  };
  await insertRollout(transaction, rollout);
  await insertEvents(transaction, [rolloutEvent(rollout, 1)]);
  const row = {
    ...NOTHING_HAPPENED,
    ...FIRST_ATTEMPT,
    id: announced.deploymentId,
    rollout_id: rolloutId,
    workspace_id: agent.workspace_id,
    agent_id: agent.id,
    store_path: announced.storePath,
    mode: announced.mode,
    rollback_script: null,
    policy: JSON.stringify(announced.policy ?? {}),
    health_checks: "[]",
    // Whatever it is by now, its journal says next.
    state: BEGUN,
    created_ms: nowMs,
    started_ms: startedMs,
    closure_size_bytes: 0,
    started_on_device: 1,
  } as const;
  await insertDeployments(transaction, [row]);
  await insertEvents(transaction, [deploymentEvent({ ...row, reason: `started on the device${who}` }, nowMs)]);
  return rolloutId;
}
