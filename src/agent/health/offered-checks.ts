/** The health checks that came with an offer: none of them may name a program of this device. */
import { NixdeployError } from "../../errors.ts";
import { type HealthCheck, parseSpecHealthChecks, storePathOf } from "../../health-check.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Offer } from "../../protocol.ts";

/** @throws NixdeployError("refused") when there is one that this version does not know */
export function readOfferedChecks({ healthChecks = [] }: Offer): readonly HealthCheck[] {
  const parsed = parseSpecHealthChecks(healthChecks, "health check");
  if (parsed.kind === "checks") return parsed.checks;
  throw new NixdeployError("refused", `cannot carry out the health checks: ${parsed.faults[0]}`, {
    hint: "If the coordinator is newer, update nixdeploy on this device.",
  });
}

/** What of the store an offer is about: the version itself first, then what its proof needs. @throws as above */
export function wantedPaths(offer: Offer): readonly StorePath[] {
  const scripts = [offer.rollbackScript, ...readOfferedChecks(offer).map(storePathOf)];
  return [...new Set([offer.storePath, ...scripts.filter((path) => path !== null)])];
}
