/** What a rollout would change, asked before it is started, in the REST API. */
import { z } from "zod";
import { CHANGE_KINDS } from "../nix/closure-diff.ts";
import { storePathSchema } from "../protocol.ts";
import { agentName, count, workspaceName } from "./fields.ts";

const versions = z.array(z.string());

/** What changes between two closures; see `nix/closure-diff.ts`. */
export const closureDiffSchema = z
  .object({
    from: storePathSchema,
    to: storePathSchema,
    changes: z.array(z.object({ name: z.string(), kind: z.enum(CHANGE_KINDS), before: versions, after: versions })),
    /** Left out of `changes`, because there are too many. */
    changesOmitted: count,
    /** Packages that are there in the same versions, built or configured otherwise. */
    rebuilt: count,
    /** Closures, uncompressed. */
    sizeBeforeBytes: count,
    sizeAfterBytes: count,
    /** What a device has to download that has nothing but the closure of `from`; less where it has more. */
    fetchPaths: count,
    fetchBytes: count,
  })
  .meta({ id: "ClosureDiff" });
export type ClosureDiffDto = z.output<typeof closureDiffSchema>;

/**
 * POST /api/v1/rollout-plans: takes what POST /api/v1/rollouts takes, refuses what that refuses, says what it would
 * change, and starts nothing.
 */
export const rolloutPlanSchema = z
  .object({
    workspace: workspaceName,
    agents: z.array(
      z.object({
        agent: agentName,
        contact: z.enum(["online", "offline", "unknown"]),
        /** What runs there, as its agent said last. */
        from: storePathSchema.nullable(),
        to: storePathSchema,
        /** Which of `diffs`; null: they were not compared, and `why` says why. */
        diff: count.nullable(),
        why: z.string().nullable(),
      }),
    ),
    /** Agents that go from the same to the same share one. */
    diffs: z.array(closureDiffSchema),
  })
  .meta({ id: "RolloutPlan" });
export type RolloutPlanDto = z.output<typeof rolloutPlanSchema>;
