/** From a spec and the flags of `activate` to the request that starts a rollout. Pure. */
import type { CreateRollout } from "../../api/rollouts.ts";
import type { ActivationPolicy, Mode } from "../../deployment.ts";
import type { HealthCheck } from "../../health-check.ts";
import type { WorkspaceName } from "../../names.ts";
import type { Origin } from "../origin.ts";
import type { DeploymentSpec } from "./spec.ts";

export type RolloutRequestOptions = {
  readonly spec: DeploymentSpec;
  readonly mode: Mode;
  readonly policy: ActivationPolicy;
  readonly workspace: WorkspaceName | undefined;
  readonly description: string | undefined;
  readonly origin: Origin | undefined;
  readonly requireOnline: boolean;
  readonly retry: boolean;
  readonly expiresInMs: number | undefined;
};

export function planRolloutRequest(options: RolloutRequestOptions): CreateRollout {
  const { spec, mode, policy, workspace, description, origin, requireOnline, retry } = options;
  const { forAll, byAgent } = spec.healthChecks;
  const agentHealthChecks = [...byAgent]
    .filter(([name, checks]) => spec.agents.has(name) && checks.length > 0)
    .map(([name, checks]): [string, HealthCheck[]] => [name, [...checks]]);
  return {
    agents: Object.fromEntries(spec.agents),
    mode,
    ...(Object.values(policy).some((value) => value !== undefined) ? { policy } : {}),
    ...(spec.rollbackScript.size > 0 ? { rollbackScript: Object.fromEntries(spec.rollbackScript) } : {}),
    ...(forAll.length > 0 ? { healthChecks: [...forAll] } : {}),
    ...(agentHealthChecks.length > 0 ? { agentHealthChecks: Object.fromEntries(agentHealthChecks) } : {}),
    ...(workspace === undefined ? {} : { workspace }),
    ...(description === undefined ? {} : { description }),
    ...(origin === undefined ? {} : { origin }),
    ...(requireOnline ? { requireOnline } : {}),
    ...(retry ? { retry } : {}),
    ...(options.expiresInMs === undefined ? {} : { expiresInMs: options.expiresInMs }),
  };
}
