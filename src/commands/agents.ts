/** `nixdeploy agents`: the registered agents and what runs on them. */
import type { AgentDto } from "../api.ts";
import { parseWorkspaceName } from "../names.ts";
import { storePathName } from "../nix/store-path.ts";
import { defineNixdeployCommand } from "./args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./output.ts";

export const command = defineNixdeployCommand({
  name: "agents",
  summary: "List the agents",
  args: {
    workspace: {
      type: "string",
      valueHint: "NAME",
      parse: parseWorkspaceName,
      description: "Only those of this workspace",
    },
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const agents = await coordinator.listAgents(args.workspace, context.signal);
    await printResult(context, { json: { agents }, text: formatAgents(agents) });
    if (agents.length === 0) context.log.info("no agents yet: they register at their first contact (nixdeploy agent)");
  },
});

/** "" without agents. */
export function formatAgents(agents: readonly AgentDto[]): string {
  if (agents.length === 0) return "";
  const header = ["agent", "contact", "system", "runs", "last deployment", "last seen"];
  return formatTable(
    header,
    agents.map((agent) => [
      agent.name,
      agent.contact,
      agent.system,
      agent.profilePath === null ? "-" : storePathName(agent.profilePath),
      agent.deployment === null ? "-" : formatDeployment(agent.deployment),
      agent.contact === "online" ? "now" : (agent.lastSeenAt ?? "never"),
    ]),
  );
}

function formatDeployment({ state, storePath, startedOnDevice }: NonNullable<AgentDto["deployment"]>): string {
  return `${state} ${storePathName(storePath)}${startedOnDevice ? " (started on the device)" : ""}`;
}
