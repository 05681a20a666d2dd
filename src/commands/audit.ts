/** `nixdeploy audit`: who did what, from where, with what effect. */
import type { AuditEntryDto } from "../api/audit.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

const LIMIT = 100;
const LIMIT_MAX = 1_000;

export const command = defineNixdeployCommand({
  name: "audit",
  summary: "Show who did what, newest first",
  details:
    "Every call that changes something, and every agent that was admitted: by which token or from the coordinator's own " +
    "host, from which address, with which effect. For admin tokens, and on the coordinator's own host with --data-dir.",
  examples: [{ comment: "The last day", command: "nixdeploy audit --since 1d" }],
  args: {
    since: { type: "duration", description: "Not what is older than this, such as 1d" },
    workspace: workspaceArg("Of this workspace only (default: all that the token may administrate)"),
    limit: {
      ...{ type: "integer", min: 1, max: LIMIT_MAX, valueHint: "N" },
      description: `At most so many (default: ${LIMIT})`,
    },
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const since = args.since === undefined ? undefined : new Date(context.clock.nowMs() - args.since).toISOString();
    const entries = await coordinator.listAudit(
      { since, workspace: args.workspace, limit: args.limit ?? LIMIT },
      context.signal,
    );
    const header = ["when", "who", "from", "did", "to", "effect"];
    await printResult(context, { json: { entries }, text: formatTable(header, entries.map(formatRow)) });
  },
});

function formatRow({ at, actor, address, act, target, effect }: AuditEntryDto): string[] {
  const who = actor.id === null ? actor.name : `${actor.name} (${actor.id})`;
  return [at.slice(0, 19), who, address ?? "here", act, target, effect];
}
