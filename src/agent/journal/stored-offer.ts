/**
 * What a deployment's folder says of it: the coordinator's offer, or what somebody at this machine asked for
 * (`nixdeploy local`), which the coordinator must first be told of.
 */
import type { z } from "zod";
import { type AgentFrameInput, announceSchema, offerSchema } from "../../protocol.ts";

export const storedOfferSchema = offerSchema.extend({
  /** Only here, never on the wire: no coordinator started it. */
  startedHere: announceSchema.pick({ startedAtMs: true, startedBy: true }).optional(),
});
export type StoredOffer = z.output<typeof storedOfferSchema>;

type Announce = Extract<AgentFrameInput, { kind: "announce" }>;

/** @returns null for what the coordinator knows: it offered it */
export function announcementOf(offer: StoredOffer): Announce | null {
  const { deploymentId, storePath, mode, policy, startedHere } = offer;
  if (startedHere === undefined) return null;
  return {
    ...{ kind: "announce", deploymentId, storePath, mode, ...startedHere },
    ...(policy === undefined ? {} : { policy }),
  };
}
