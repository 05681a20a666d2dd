/** Offers for tests: short names instead of ids. */
import { type DeploymentId, parseDeploymentId } from "../../src/names.ts";
import type { Offer } from "../../src/protocol.ts";
import { storePathFor } from "../support/tiny-path.ts";

export function deploymentIdOf(name: string): DeploymentId {
  return parseDeploymentId(name.padEnd(16, "0"));
}

export function offerOf(name: string, changes: Partial<Offer> = {}): Offer {
  return {
    kind: "offer",
    deploymentId: deploymentIdOf(name),
    storePath: storePathFor(`path-${name}`),
    mode: "switch",
    rollbackScript: null,
    ...changes,
  };
}
