/**
 * What has happened to the deployments of a rollout since a follower looked last: those that changed as they are now, and
 * the states that they went through in between, from the log of events. Sends nothing.
 */
import { z } from "zod";
import { DEPLOYMENT_STATES, type DeploymentState } from "../../deployment.ts";
import type { DeploymentId, RolloutId } from "../../names.ts";
import {
  type DeploymentRow,
  findDeployment,
  loadDeployments,
  loadRolloutDeployments,
} from "../database/deployments.ts";
import { type EventRow, loadRolloutEvents } from "../database/events.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { FollowedDeployments } from "./followed.ts";

/** All deployments of a rollout, or one. */
export type Followable = { readonly rolloutId: RolloutId; readonly only: DeploymentId | null };
/** The last event and the last chunk of a log that were taken. */
export type Cursor = { eventId: number; chunkId: number };
type Change = Pick<EventRow, "id" | "at_ms" | "kind" | "data">;
/** A state that had ended before it could be sent. */
export type Passed = { readonly state: DeploymentState; readonly atMs: number; readonly eventId: number };

/** What `deploymentEvent` of transition.ts writes. */
const stateSchema = z.object({ state: z.enum(DEPLOYMENT_STATES) });

const BATCH = 1_000;

export type Looked = {
  /** What happened since the last look, oldest first. */
  readonly changes: ReadonlyMap<DeploymentId, readonly Change[]>;
  readonly rows: readonly DeploymentRow[];
};

/** In one transaction, so that the last change of each is what its row says, and those before it were passed over. */
export async function look(
  services: { readonly database: CoordinatorDatabase },
  how: {
    readonly following: Followable;
    readonly followed: FollowedDeployments;
    readonly cursor: Cursor;
    readonly isFirst: boolean;
  },
): Promise<Looked> {
  const { following, followed, cursor, isFirst } = how;
  return await services.database.transaction().execute(async (database) => {
    const changes = await takeEvents(database, following.rolloutId, cursor);
    const rows = isFirst ? await loadFollowed(database, following) : await loadChanged(database, followed, changes);
    return { changes, rows };
  });
}

async function loadFollowed(database: CoordinatorDatabase, following: Followable): Promise<readonly DeploymentRow[]> {
  if (following.only === null) return await loadRolloutDeployments(database, following.rolloutId);
  const row = await findDeployment(database, following.only);
  return row === null ? [] : [row];
}

/** Those with new events, and those that have not ended whose agent is in another contact than it was. */
async function loadChanged(
  database: CoordinatorDatabase,
  followed: FollowedDeployments,
  changes: ReadonlyMap<DeploymentId, unknown>,
): Promise<readonly DeploymentRow[]> {
  const ids = new Set(followed.takeOtherContacts());
  for (const id of changes.keys()) if (followed.find(id) !== null) ids.add(id);
  const rows = new Map((await loadDeployments(database, [...ids])).map((row) => [row.id, row]));
  return [...ids].map((id) => rows.get(id)).filter((row) => row !== undefined);
}

/** Moves the cursor behind the newest event. @returns what has changed since */
async function takeEvents(
  database: CoordinatorDatabase,
  rolloutId: RolloutId,
  cursor: Cursor,
): Promise<ReadonlyMap<DeploymentId, readonly Change[]>> {
  const changes = new Map<DeploymentId, Change[]>();
  for (;;) {
    const events = await loadRolloutEvents(database, { rolloutId, afterId: cursor.eventId, limit: BATCH });
    for (const event of events) {
      cursor.eventId = event.id;
      if (event.deployment_id === null) continue;
      const before = changes.get(event.deployment_id);
      if (before === undefined) changes.set(event.deployment_id, [event]);
      else before.push(event);
    }
    if (events.length < BATCH) return changes;
  }
}

/** The states that came between the one that was sent last and the present one. Pure */
export function planPassed(changes: readonly Change[], sent: DeploymentState): readonly Passed[] {
  const states = changes.filter(({ kind }) => kind === "deployment");
  const passed: Passed[] = [];
  let last: DeploymentState = sent;
  // Nearly always there is one change, which is the row's.
  for (const { data, at_ms, id } of states.slice(0, -1)) {
    const { state } = stateSchema.parse(JSON.parse(data));
    if (state !== last) passed.push({ state, atMs: at_ms, eventId: id });
    last = state;
  }
  return passed;
}
