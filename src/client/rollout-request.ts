/** From a spec and the flags of `activate` to the request that starts a rollout. Pure. */
import type { CreateRollout } from "../api.ts";
import type { ActivationPolicy, Mode } from "../deployment.ts";
import type { WorkspaceName } from "../names.ts";
import type { Origin } from "./origin.ts";
import type { DeploymentSpec } from "./spec.ts";

export type RolloutRequestOptions = {
  readonly spec: DeploymentSpec;
  readonly mode: Mode;
  readonly policy: ActivationPolicy;
  readonly workspace: WorkspaceName | undefined;
  readonly description: string | undefined;
  readonly origin: Origin | undefined;
  readonly requireOnline: boolean;
};

export function planRolloutRequest(options: RolloutRequestOptions): CreateRollout {
  const { spec, mode, policy, workspace, description, origin, requireOnline } = options;
  return {
    agents: Object.fromEntries(spec.agents),
    mode,
    ...(Object.values(policy).some((value) => value !== undefined) ? { policy } : {}),
    ...(spec.rollbackScript.size > 0 ? { rollbackScript: Object.fromEntries(spec.rollbackScript) } : {}),
    ...(workspace === undefined ? {} : { workspace }),
    ...(description === undefined ? {} : { description }),
    ...(origin === undefined ? {} : { origin }),
    ...(requireOnline ? { requireOnline } : {}),
  };
}
