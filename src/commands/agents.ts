/** `nixdeploy agents`: the registered agents and what runs on them; what else can be done to them is beside this file. */
import type { AgentDto } from "../api/agents.ts";
import { describeExpiry, describePutOff, describeStall, describeStop } from "../client/follow/follow-text.ts";
import type { DeploymentState } from "../deployment.ts";
import { formatLabels } from "../labels.ts";
import { storePathName } from "../nix/store-path.ts";
import { formatCount, formatSpan } from "../quantity.ts";
import { ADMITTED_BY_ARG, AGENTS_ARGS, label, remove, rename, SELECTORS } from "./agents-change.ts";
import { approve, pending, reject } from "./agents-keys.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import { openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const LIST = {
  summary: "List the agents",
  args: { ...AGENTS_ARGS, admittedBy: ADMITTED_BY_ARG },
  positionals: { select: SELECTORS },
} as const;

const list = (name: "agents" | "agents list") =>
  defineNixdeployCommand({
    ...LIST,
    name,
    examples: [
      { comment: "Some of them", command: "nixdeploy agents 'web-*' label:ring=2" },
      { comment: "All that a token admitted", command: "nixdeploy agents --admitted-by 0123456789abcdfg" },
    ],
    async run({ args, context }) {
      await using coordinator = await openAdministration(context, args.dataDir);
      const { workspace, admittedBy, select } = args;
      const agents = await coordinator.listAgents({ workspace, admittedBy, select }, context.signal);
      await printResult(context, { json: { agents }, text: formatAgents(agents, context.clock.nowMs()) });
      if (agents.length > 0) return;
      const isFiltered = workspace !== undefined || admittedBy !== undefined;
      context.log.info(isFiltered ? "no such agents" : NO_AGENTS);
    },
  });

const NO_AGENTS = "no agents yet: they register at their first contact (nixdeploy agent)";

export const command = defineNixdeployGroup({
  name: "agents",
  summary: "List, remove, rename, label and approve agents",
  alone: list("agents"),
  commands: [list("agents list"), remove, rename, label, pending, approve, reject],
});

const UNITS_SHOWN_MAX = 2;

/** More than a machine takes to go down, come up, and log in; then it hangs, and somebody must reset it. */
const REBOOT_MAX_MS = 15 * 60_000;

/** "" without agents. */
export function formatAgents(agents: readonly AgentDto[], nowMs: number): string {
  if (agents.length === 0) return "";
  const hasLabels = agents.some(({ labels }) => Object.keys(labels).length > 0);
  const header = ["agent", "contact", "system", "runs", "last deployment", "since", "last seen", "attention"];
  return formatTable(
    hasLabels ? [...header, "labels"] : header,
    agents.map((agent) => [
      agent.name,
      describeContact(agent, nowMs),
      agent.system,
      agent.profilePath === null ? "-" : storePathName(agent.profilePath),
      agent.deployment === null ? "-" : formatDeployment(agent, agent.deployment),
      formatAge(agent.deployment?.changedAt ?? null, nowMs),
      agent.contact === "online" ? "now" : (agent.lastSeenAt ?? "never"),
      describeAttention(agent),
      ...(hasLabels ? [formatLabels(agent.labels)] : []),
    ]),
  );
}

/** `3 h`: how long ago that was. */
function formatAge(time: string | null, nowMs: number): string {
  return time === null ? "-" : formatSpan(Math.max(0, nowMs - Date.parse(time)));
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

function formatDeployment({ contact }: AgentDto, deployment: NonNullable<AgentDto["deployment"]>): string {
  const { state, storePath, startedOnDevice, lateOutcome } = deployment;
  const isUnheard = state === "offered" && contact === "offline";
  const details = [
    startedOnDevice ? " (started on the device)" : "",
    state === "queued" ? describePutOff(deployment) : "",
    isUnheard ? ", its word is waited for" : "",
    state === "queued" || isUnheard ? describeExpiry(deployment) : "",
    describeStop(deployment),
    lateOutcome === null ? "" : `; the device said later: ${lateOutcome.outcome}`,
  ];
  return `${state} ${storePathName(storePath)}${details.join("")}`;
}

/** What a person should look at, briefly; "" when there is nothing. */
function describeAttention(agent: AgentDto): string {
  const { drift, failedUnits, failedUnitCount, rebootNeeded, deployment } = agent;
  const remarks: string[] = [];
  const stalled = deployment?.stalledSince ?? null;
  if (stalled !== null) remarks.push(describeStall(stalled));
  if (agent.versionStatus === "outdated") remarks.push(`outdated: ${agent.agentVersion}`);
  if (drift !== null) remarks.push(`drift: not ${storePathName(drift.expected)}`);
  const failed = failedUnitCount ?? failedUnits?.length ?? 0;
  if (failed > 0) {
    const names = (failedUnits ?? []).slice(0, UNITS_SHOWN_MAX);
    remarks.push(`${formatCount(failed, "unit")} failed: ${names.join(", ")}${failed > names.length ? ", …" : ""}`);
  }
  if (rebootNeeded !== null && rebootNeeded.length > 0) remarks.push(`reboot needed: new ${rebootNeeded.join(", ")}`);
  return remarks.join("; ");
}
