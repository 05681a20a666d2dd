/** The stream of all changes in the REST API. */
import { z } from "zod";
import { storePathSchema } from "../protocol.ts";
import { agentName, count, deploymentId, rolloutId, time, workspaceName } from "./fields.ts";

/**
 * Something that changed.
 *
 * | kind       | data                                                                                             |
 * | ---------- | ------------------------------------------------------------------------------------------------ |
 * | rollout    | a rollout began: `deployments` (how many), `description`                                         |
 * | deployment | its `state` from now on, and the `reason`                                                        |
 * | late-outcome | what the agent says of a deployment that had ended here already: its `state`, `outcome`, `reason`  |
 * | progress   | a deployment that runs makes none since `stalledSince`; null: it does again                      |
 * | agent      | its `name`, and the `change`: registered, online, offline, removed …                             |
 *
 * Later versions may send other kinds, and more data.
 */
export const changeEventSchema = z
  .object({
    /** Counts up over the whole coordinator; what is between two that one sees is not for him. */
    id: count,
    at: time,
    workspace: workspaceName,
    kind: z.string(),
    /** Null where it is about none, or about one that is there no more. */
    agent: agentName.nullable(),
    rollout: rolloutId.nullable(),
    deployment: deploymentId.nullable(),
    storePath: storePathSchema.nullable(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: "ChangeEvent" });
export type ChangeEvent = z.output<typeof changeEventSchema>;

/** What cannot be sent any more: too old, or (`unknown`) of a database that was put back. The stream goes on at `next`. */
export const gapSchema = z.object({ after: count, next: count, reason: z.enum(["too-old", "unknown"]) });
export type Gap = z.output<typeof gapSchema>;

/** Where the stream stands: sent first, so that whoever is cut off before anything happens knows behind what to go on. */
export const positionSchema = z.object({ after: count });

/** GET /api/v1/events: server-sent events, from now on, or behind `Last-Event-ID` (or `?after=ID`; 0: whatever is kept). */
export const streamEventSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("change"), data: changeEventSchema }),
  z.object({ event: z.literal("gap"), data: gapSchema }),
  z.object({ event: z.literal("position"), data: positionSchema }),
]);
export type StreamEvent = z.output<typeof streamEventSchema>;
/** Those that say something to people. */
export type NewsEvent = Exclude<StreamEvent, { event: "position" }>;

/** How long events are kept, at least. */
export const EVENTS_KEPT_MS = 30 * 24 * 3_600_000;
