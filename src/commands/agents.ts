/** `nixdeploy agents`: the registered agents and what runs on them. */
import type { AgentDto } from "../api/agents.ts";
import { describeExpiry, describePutOff } from "../client/follow-text.ts";
import type { DeploymentState } from "../deployment.ts";
import { parseWorkspaceName } from "../names.ts";
import { storePathName } from "../nix/store-path.ts";
import { formatCount } from "../quantity.ts";
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
    await printResult(context, { json: { agents }, text: formatAgents(agents, context.clock.nowMs()) });
    if (agents.length === 0) context.log.info("no agents yet: they register at their first contact (nixdeploy agent)");
  },
});

const UNITS_SHOWN_MAX = 2;

/** More than a machine takes to go down, come up, and log in; then it hangs, and somebody must reset it. */
const REBOOT_MAX_MS = 15 * 60_000;

/** "" without agents. */
export function formatAgents(agents: readonly AgentDto[], nowMs: number): string {
  if (agents.length === 0) return "";
  const header = ["agent", "contact", "system", "runs", "last deployment", "last seen", "attention"];
  return formatTable(
    header,
    agents.map((agent) => [
      agent.name,
      describeContact(agent, nowMs),
      agent.system,
      agent.profilePath === null ? "-" : storePathName(agent.profilePath),
      agent.deployment === null ? "-" : formatDeployment(agent.deployment),
      agent.contact === "online" ? "now" : (agent.lastSeenAt ?? "never"),
      describeAttention(agent),
    ]),
  );
}

/** One that is rebooting is silent for a good reason, for a while. */
export function describeContact(
  agent: Pick<AgentDto, "contact" | "lastSeenAt"> & { readonly deployment: { readonly state: DeploymentState } | null },
  nowMs: number,
): string {
  const { contact, lastSeenAt, deployment } = agent;
  if (contact === "online" || deployment?.state !== "rebooting" || lastSeenAt === null) return contact;
  return nowMs - Date.parse(lastSeenAt) <= REBOOT_MAX_MS
    ? "rebooting"
    : `${contact}: did not come back from its reboot`;
}

function formatDeployment(deployment: NonNullable<AgentDto["deployment"]>): string {
  const { state, storePath, startedOnDevice } = deployment;
  const putOff = state === "queued" ? `${describePutOff(deployment)}${describeExpiry(deployment)}` : "";
  return `${state} ${storePathName(storePath)}${startedOnDevice ? " (started on the device)" : ""}${putOff}`;
}

/** What a person should look at, briefly; "" when there is nothing. */
function describeAttention({ drift, failedUnits, failedUnitCount, rebootNeeded }: AgentDto): string {
  const remarks: string[] = [];
  if (drift !== null) remarks.push(`drift: not ${storePathName(drift.expected)}`);
  const failed = failedUnitCount ?? failedUnits?.length ?? 0;
  if (failed > 0) {
    const names = (failedUnits ?? []).slice(0, UNITS_SHOWN_MAX);
    remarks.push(`${formatCount(failed, "unit")} failed: ${names.join(", ")}${failed > names.length ? ", …" : ""}`);
  }
  if (rebootNeeded !== null && rebootNeeded.length > 0) remarks.push(`reboot needed: new ${rebootNeeded.join(", ")}`);
  return remarks.join("; ");
}
