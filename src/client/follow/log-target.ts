/** What `logs` is given: the id of a deployment, the id of a rollout, or agents (`agent-selector.ts`). */
import { parseAgentSelector } from "../../agent-selector.ts";
import type { DeploymentDto } from "../../api/deployments.ts";
import { NixdeployError } from "../../errors.ts";
import { parseDeploymentId, parseRolloutId, type RolloutId, type WorkspaceName } from "../../names.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";
import type { CoordinatorClient } from "../api/coordinator.ts";

export type LogTarget = {
  readonly deployments: readonly DeploymentDto[];
  /** Null: these deployments, not the whole rollout of one. */
  readonly rolloutId: RolloutId | null;
};

type Client = Pick<CoordinatorClient, "loadDeployment" | "loadRollout" | "listDeployments" | "listAgents">;
/** Agents are looked for in this workspace only; undefined: wherever the token may. */
type Asked = { readonly text: string; readonly workspace: WorkspaceName | undefined };

/**
 * Ids are tried first: 16 lower-case letters and digits may be a name as well. An agent means its latest deployment.
 * @throws NixdeployError "not-found" when it is none of the three
 */
export async function findLogTarget(client: Client, asked: Asked, signal: AbortSignal): Promise<LogTarget> {
  const { text } = asked;
  const found = (await findById(client, text, signal)) ?? (await findBySelector(client, asked, signal));
  if (found !== null) return found;
  throw new NixdeployError(
    "not-found",
    `cannot show the log of ${quoteExcerpt(text)}: no deployment or agent is called so`,
    {
      hint: "Give the id of a deployment or rollout, or the name of an agent that something was deployed to (`nixdeploy agents`).",
    },
  );
}

async function findById(client: Client, text: string, signal: AbortSignal): Promise<LogTarget | null> {
  const deploymentId = parseOrNull(parseDeploymentId, text);
  const rolloutId = parseOrNull(parseRolloutId, text);
  if (deploymentId === null || rolloutId === null) return null;
  const deployment = await orNull(client.loadDeployment(deploymentId, signal));
  if (deployment !== null) return { deployments: [deployment], rolloutId: null };
  const rollout = await orNull(client.loadRollout(rolloutId, signal));
  return rollout === null ? null : { deployments: rollout.deployments, rolloutId };
}

/** Of each agent its latest; those to which nothing was deployed have nothing to show. */
async function findBySelector(
  client: Client,
  { text, workspace }: Asked,
  signal: AbortSignal,
): Promise<LogTarget | null> {
  const selector = parseOrNull(parseAgentSelector, text);
  if (selector === null) return null;
  // Asked by its name alone, one that was removed is found as well.
  if (selector.kind === "name") {
    const [latest] = await client.listDeployments({ agent: text, workspace, limit: 1 }, signal);
    return latest === undefined ? null : { deployments: [latest], rolloutId: null };
  }
  const agents = await client.listAgents({ select: [text], workspace }, signal);
  const deployments: DeploymentDto[] = [];
  for (const { deployment } of agents) {
    if (deployment !== null) deployments.push(await client.loadDeployment(deployment.id, signal));
  }
  return deployments.length === 0 ? null : { deployments, rolloutId: null };
}

function parseOrNull<Value>(parse: (text: string) => Value, text: string): Value | null {
  try {
    return parse(text);
  } catch {
    // Not of this form: it is tried as something else.
    return null;
  }
}

async function orNull<Value>(answer: Promise<Value>): Promise<Value | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof NixdeployError && error.kind === "not-found") return null;
    throw error;
  }
}
