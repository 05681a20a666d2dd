/**
 * What an operator changes of agents: name and labels. Its key is who an agent is, so its history follows a new name by
 * itself; its device may go on logging in by any name it had before, and learns the new one from its next welcome,
 * for which it is sent to log in again.
 */
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { changeLabels, LABELS_MAX, type LabelChanges, labelsSchema, mergeLabels } from "../../labels.ts";
import type { AgentName } from "../../names.ts";
import { parseAgentName } from "../../names.ts";
import { parsedWith } from "../../protocol.ts";
import { deleteEnrolmentRequest } from "../database/agent-keys.ts";
import { type AgentRow, findAgent, findAgentByName, updateAgent } from "../database/agents.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { AgentRegistry } from "./registry.ts";

export type AgentChangeDeps = { readonly database: CoordinatorDatabase; readonly registry: AgentRegistry };

const formerNamesSchema = z.array(parsedWith(parseAgentName));

/** The names under which its device may log in besides the present one. */
export function formerNamesOf(agent: Pick<AgentRow, "former_names">): readonly AgentName[] {
  return formerNamesSchema.parse(JSON.parse(agent.former_names));
}

/** Whether the device may say that this is its name. */
export function answersTo(agent: AgentRow, name: AgentName): boolean {
  return agent.name === name || formerNamesOf(agent).includes(name);
}

export const labelsOf = (agent: Pick<AgentRow, "labels" | "operator_labels">) =>
  mergeLabels(labelsSchema.parse(JSON.parse(agent.labels)), operatorLabelsOf(agent));

export const operatorLabelsOf = (agent: Pick<AgentRow, "operator_labels">) =>
  labelsSchema.parse(JSON.parse(agent.operator_labels));

/** @throws NixdeployError `conflict` when another agent has the name */
export async function renameAgent(
  deps: AgentChangeDeps,
  change: { readonly agent: AgentRow; readonly name: AgentName },
): Promise<AgentRow> {
  const { agent, name } = change;
  const renamed = await deps.database.transaction().execute(async (transaction) => {
    const workspaceId = agent.workspace_id;
    const other = await findAgentByName(transaction, { workspaceId, name });
    if (other !== null && other.id !== agent.id) {
      throw new NixdeployError("conflict", `cannot rename ${agent.name} to ${name}: another agent has this name`, {
        hint: `Choose another name, or remove that one first: nixdeploy agents remove ${name}`,
      });
    }
    const former = new Set([...formerNamesOf(agent), agent.name]);
    former.delete(name);
    const after = { name, former_names: JSON.stringify([...former]) };
    await updateAgent(transaction, agent.id, after);
    // Who asked to take over the old name did not ask for this one.
    await deleteEnrolmentRequest(transaction, { workspaceId, name: agent.name });
    return { ...agent, ...after };
  });
  deps.registry.find(agent.id)?.close(`renamed to ${name}: log in again`);
  return renamed;
}

/** Of all or of none. @throws NixdeployError `refused` when one would have too many */
export async function labelAgents(
  deps: AgentChangeDeps,
  change: { readonly agents: readonly AgentRow[]; readonly labels: LabelChanges },
): Promise<readonly AgentRow[]> {
  return await deps.database.transaction().execute(async (transaction) => {
    const after: AgentRow[] = [];
    for (const { id } of change.agents) {
      const agent = await findAgent(transaction, id);
      if (agent === null) continue;
      const labels = changeLabels(operatorLabelsOf(agent), change.labels);
      if (labels === null) {
        throw new NixdeployError("refused", `cannot label ${agent.name}: it would have more than ${LABELS_MAX} labels`);
      }
      const operator_labels = JSON.stringify(labels);
      await updateAgent(transaction, id, { operator_labels });
      after.push({ ...agent, operator_labels });
    }
    return after;
  });
}
