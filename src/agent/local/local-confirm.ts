/**
 * What somebody says who has come back in after he started an activation from afar: that he could. It counts only while
 * that is being asked, so that a visit from before the change proves nothing; how he came in is his business.
 */
import type { StorePath } from "../../nix/store-path.ts";
import { recordProof } from "../activation/proof.ts";
import { readRecord, type Stage } from "../activation/record.ts";
import type { BootClock } from "../machine/boot-clock.ts";
import type { LocalTarget } from "./local-target.ts";

export type Visit =
  | { readonly kind: "confirmed" }
  /** It is not asked for, not yet or not any more. */
  | { readonly kind: "too-early" | "too-late"; readonly stage: Stage }
  /** No activation of this path is on record. */
  | { readonly kind: "over" };

export async function confirmVisit(options: {
  readonly target: Pick<LocalTarget, "stateDirectory">;
  readonly storePath: StorePath;
  readonly bootClock: BootClock;
}): Promise<Visit> {
  const { stateDirectory } = options.target;
  const record = await readRecord(stateDirectory);
  if (record?.storePath !== options.storePath) return { kind: "over" };
  const { stage, deploymentId } = record;
  switch (stage) {
    case "checking":
    case "activating":
    case "arming":
    case "rebooting":
      return { kind: "too-early", stage };
    case "confirming": {
      const { bootId } = await options.bootClock.read();
      // It is not an agent's, and nobody compares it.
      await recordProof(stateDirectory, { deploymentId, bootId, processId: process.pid });
      return { kind: "confirmed" };
    }
    case "committing":
    case "undoing":
    case "returning":
    case "finished":
      return { kind: "too-late", stage };
    default:
      return stage satisfies never;
  }
}
