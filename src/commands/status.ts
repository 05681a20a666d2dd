/** `nixdeploy status`: the coordinator and its agents at one glance. */
import type { RolloutFactsDto } from "../api/rollouts.ts";
import type { StatusDto } from "../api/status.ts";
import { describeStart } from "../client/origin.ts";
import type { Seen } from "../client/watch/watch-status.ts";
import { NixdeployError } from "../errors.ts";
import { cleanLines } from "../printable.ts";
import { formatAgents } from "./agents.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { DATA_DIR_ARG, openAnywhere } from "./open-coordinator.ts";
import { showStatusLive } from "./status-watch.ts";
import { printResult } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const command = defineNixdeployCommand({
  name: "status",
  summary: "Show the coordinator and the agents",
  details:
    "With --watch a terminal shows it as it changes; anything else gets the table once and then a line for each event, and " +
    "with --json one object a line, whenever something has changed. A coordinator that restarts is waited for.",
  args: {
    workspace: workspaceArg("Only this one (default: wherever the token may)"),
    watch: { type: "boolean", description: "Go on showing it as it changes, until it is interrupted" },
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    const opened = await openAnywhere(context, args.dataDir);
    await using coordinator = opened.coordinator;
    const isServing = opened.kind === "running";
    const format = ({ status, agents }: Seen) =>
      [formatStatus(status, { isServing }), formatAgents(agents, context.clock.nowMs())]
        .filter((part) => part !== "")
        .join("\n\n");
    const toJson = ({ status, agents }: Seen) => ({ ...status, isServing, agentList: agents });
    if (args.watch) {
      if (opened.kind === "stopped") {
        throw new NixdeployError("refused", `cannot watch ${args.dataDir}: no coordinator runs on it`, {
          hint: "Without --watch it says what the database has.",
        });
      }
      const { workspace } = args;
      return await showStatusLive(context, { coordinator: opened.coordinator, workspace, format, toJson });
    }
    const [status, agents] = await Promise.all([
      coordinator.loadStatus(args.workspace, context.signal),
      coordinator.listAgents({ workspace: args.workspace }, context.signal),
    ]);
    const seen = { status, agents };
    await printResult(context, { json: toJson(seen), text: format(seen) });
  },
});

function formatStatus(status: StatusDto, { isServing }: { readonly isServing: boolean }): string {
  const { online, offline, unknown } = status.agents;
  const silent = unknown === 0 ? "" : `, ${unknown} not heard of yet`;
  const month = status.agentPeaks[0]?.month;
  const peaks = status.agentPeaks.filter((peak) => peak.month === month);
  const peak = peaks.map(({ workspace, agents }) => `${agents} in ${workspace}`).join(", ");
  const stalled = status.deploymentsStalled === 0 ? "" : ` (${status.deploymentsStalled} without progress)`;
  const lines = [
    isServing
      ? `coordinator: nixdeploy ${status.version} at ${status.url}, running since ${status.startedAt}`
      : "coordinator: not running; this is what its database has",
    `agents:      ${online} online, ${offline} offline${silent}`,
    `deployments: ${status.deploymentsRunning} running${stalled}, ${status.deploymentsQueued} queued`,
    ...status.latestRollouts.map(
      (rollout, index) => `${index === 0 ? "latest:" : "       "}      ${formatRollout(rollout)}`,
    ),
    ...(month === undefined ? [] : [`peak:        ${peak}, connected at once in ${month}`]),
  ];
  return cleanLines(lines.join("\n"));
}

/** `2026-11-22T13:05:59.000Z rollout …: new kernel; started by alice, …` */
function formatRollout(rollout: RolloutFactsDto): string {
  return `${rollout.createdAt} ${describeStart(rollout) || `rollout ${rollout.id}`}`;
}
