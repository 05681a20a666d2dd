/** How a rollout is shown while it runs. One of: lines (`plain-view.ts`), a live screen, JSON lines. */
import type { FollowNote } from "../../client/follow/follow-state.ts";

export type RolloutView = {
  note(note: FollowNote): Promise<void>;
  /** The connection to the coordinator was lost, or is back. */
  contact(contact: "lost" | "back"): Promise<void>;
  /** Takes away what does not stay; to be called once, at the end, whatever happened. */
  close(): Promise<void>;
};

export function describeContact(contact: "lost" | "back"): string {
  return contact === "lost"
    ? "lost the connection to the coordinator: trying again (the deployments go on)"
    : "the coordinator is there again";
}
