/** `nixdeploy local`: at the machine itself, when coordinator, CI or network are down. */
import type { LocalStatus } from "../agent/local/local-status.ts";
import { cleanLine } from "../printable.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import { activate, confirm, rollback } from "./local-activate.ts";
import { findTarget, TARGET_ARGS } from "./local-args.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const status = defineNixdeployCommand({
  name: "local status",
  summary: "Show what this machine runs, and an activation in progress",
  args: TARGET_ARGS,
  async run({ args, context }) {
    const { readLocalStatus } = await import("../agent/local/local-status.ts");
    const local = await readLocalStatus(await findTarget(args, context), context.env);
    await printResult(context, { json: local, text: formatStatus(local) });
  },
});

export const command = defineNixdeployGroup({
  name: "local",
  summary: "Activate, roll back and look at this machine without the coordinator",
  commands: [activate, rollback, confirm, status],
});

/** How many of the latest generations people see. */
const SHOWN_MAX = 10;

export function formatStatus(status: LocalStatus): string {
  const agent = status.agent === null ? "none" : `${status.agent}, ${status.agentRuns ? "running" : "not running"}`;
  const lines: readonly (readonly [string, string])[] = [
    ["agent:", agent],
    ["profile:", `${status.profile} → ${status.profilePath ?? "nothing"}`],
    ["runs:", status.currentPath ?? "no system"],
    ["booted:", status.bootedPath ?? "no system"],
    ["activation:", formatActivation(status)],
    ["last outcome:", formatLast(status)],
  ];
  const facts = lines.map(([label, value]) => `${label.padEnd(14)}${value}`).join("\n");
  const shown = status.generations.slice(-SHOWN_MAX).toReversed();
  if (shown.length === 0) return facts;
  const rows = shown.map(({ number, storePath }) => [
    String(number),
    storePath,
    number === status.generation ? "now" : "",
  ]);
  return `${facts}\n\n${formatTable(["generation", "path", ""], rows)}`;
}

function formatActivation({ activation, stateDirectory }: LocalStatus): string {
  if (activation === null) return "none";
  const { stage, storePath, deployment, isSupervised, startedOnDevice, mode } = activation;
  const origin = startedOnDevice ? "started on this device" : "from the coordinator";
  const hint =
    isSupervised || stage === "finished"
      ? ""
      : `; nobody is at work on it: nixdeploy supervise --state-dir ${stateDirectory}`;
  return `${stage} ${storePath} (${mode}, deployment ${deployment}, ${origin})${hint}`;
}

function formatLast({ lastOutcome }: LocalStatus): string {
  if (lastOutcome === null) return "nothing that the coordinator does not know";
  return `${lastOutcome.outcome} at ${lastOutcome.at}: ${cleanLine(lastOutcome.reason)}`;
}
