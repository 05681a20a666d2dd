/**
 * How many agents were connected at once at most, by workspace and month (UTC): counted at each login, kept in memory,
 * and written when it has grown. What a kill loses of it is made up for when the agents are back.
 */
import type { Clock } from "../../runtime.ts";
import { raiseAgentPeak } from "../database/agent-peaks.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { AgentRegistry } from "./registry.ts";

export type AgentPeaks = {
  /** So many are connected now. */
  note(workspaceId: string, online: number): void;
  /** Writes what has grown; a month that has begun starts with those that are connected. */
  save(): Promise<void>;
};

type Peak = { readonly month: string; readonly peak: number; readonly atMs: number };

export function createAgentPeaks(deps: {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly registry: Pick<AgentRegistry, "onlineByWorkspace">;
}): AgentPeaks {
  const known = new Map<string, Peak>();
  /** By workspace and month: at the turn of a month both have something to write. */
  const grown = new Map<string, Peak & { readonly workspaceId: string }>();
  const note = (workspaceId: string, online: number) => {
    if (online === 0) return;
    const atMs = deps.clock.nowMs();
    const month = monthOf(atMs);
    const before = known.get(workspaceId);
    if (before !== undefined && before.month === month && before.peak >= online) return;
    const peak = { month, peak: online, atMs };
    known.set(workspaceId, peak);
    grown.set(`${workspaceId} ${month}`, { ...peak, workspaceId });
  };
  return {
    note,
    async save() {
      for (const [workspaceId, online] of deps.registry.onlineByWorkspace) note(workspaceId, online);
      const rows = [...grown.values()];
      grown.clear();
      for (const { workspaceId, month, peak, atMs } of rows) {
        await raiseAgentPeak(deps.database, { workspace_id: workspaceId, month, peak, at_ms: atMs });
      }
    },
  };
}

/** `2026-11` */
export function monthOf(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 7);
}
