/** Records for tests: of a NixOS system that is about to be switched from `OLD` to `NEW`, unless told otherwise. */
import type { ActivationRecord } from "../../../src/agent/activation/record.ts";
import { parseAgentName } from "../../../src/names.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { deploymentIdOf } from "../offers.ts";

export const OLD = storePathFor("old");
export const NEW = storePathFor("new");
/** Toplevels of their specialisation `gaming`. */
export const OLD_GAMING = storePathFor("old-gaming");
export const NEW_GAMING = storePathFor("new-gaming");
export const NEWER = storePathFor("newer");
export const SCRIPT = storePathFor("script");
export const BOOT_ID = "boot-1";

export function recordOf(changes: Partial<ActivationRecord> = {}): ActivationRecord {
  const type = changes.type ?? "nixos";
  return {
    version: 1,
    deploymentId: deploymentIdOf("a"),
    agentName: parseAgentName("nuc"),
    coordinatorUrl: "http://coordinator",
    profilePath: "/profiles/test",
    storePath: NEW,
    type,
    mode: "switch",
    rollbackScript: null,
    previous: { profile: OLD, current: type === "nixos" ? OLD : null, failedUnits: [] },
    policy: { onUnitFailure: "rollback", confirmWindowMs: 60_000, activationTimeoutMs: 60_000 },
    prover: { kind: "supervisor" },
    environment: { LANG: "C.UTF-8" },
    fetchedBytes: 123,
    stage: "checking",
    tries: 0,
    bootId: BOOT_ID,
    deadlineUptimeMs: null,
    commitBegun: false,
    unitsFailed: false,
    note: null,
    reason: null,
    cause: null,
    outcome: null,
    fault: null,
    exitCode: null,
    ...changes,
  };
}
