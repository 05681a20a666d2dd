/** `nixdeploy events`: everything that changes, as it happens, until somebody stops it. */
import type { ChangeEvent, NewsEvent } from "../api/events.ts";
import { watchEvents } from "../client/follow/watch-events.ts";
import { cleanLine } from "../printable.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { sayContact } from "./terminal/contact.ts";
import { printJsonLine } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

const EVENT_ID = /^\d{1,15}$/;

export const command = defineNixdeployCommand({
  name: "events",
  summary: "Show everything that changes, as it happens",
  details:
    "Rollouts, deployments and agents of the token's workspaces, until it is interrupted; a coordinator that restarts is " +
    "waited for, and nothing is missed. With --json one object a line. Events are kept for 30 days; one who comes later " +
    "is told what he has missed.",
  examples: [
    { comment: "From now on", command: "nixdeploy events" },
    { comment: "What came behind the last one that was seen", command: "nixdeploy events --since 4711 --json" },
  ],
  args: {
    since: {
      type: "string",
      valueHint: "ID",
      parse: parseEventId,
      description: "Begin behind this event; 0: with the oldest that is kept (default: from now on)",
    },
    workspace: workspaceArg("Of this workspace only (default: all that the token may watch)"),
  },
  async run({ args, context }) {
    await using coordinator = await openCoordinator(context, "general");
    await watchEvents({
      open: coordinator.openEvents(args.workspace),
      lastEventId: args.since ?? null,
      onEvent: async (event) => {
        if (context.json) return await printJsonLine(context, event);
        await context.stdout.write(`${formatStreamEvent(event)}\n`);
      },
      onContact: (contact) => sayContact(context, contact),
      clock: context.clock,
      random: context.random,
      signal: context.signal,
    });
  },
});

function parseEventId(text: string): string {
  if (!EVENT_ID.test(text)) throw new Error("the id of an event is a whole number");
  return text;
}

/** `4711 2026-11-22T13:05:59Z default: nuc failed: The disk is full.` */
export function formatStreamEvent({ event, data }: NewsEvent): string {
  if (event === "gap") {
    const why = data.reason === "too-old" ? "are no longer kept" : "are not known here (was a backup restored?)";
    return `-- events behind ${data.after} and before ${data.next} ${why}`;
  }
  return cleanLine(`${data.id} ${data.at} ${data.workspace}: ${describeChange(data)}`);
}

function describeChange(change: ChangeEvent): string {
  const { kind, agent, rollout, data } = change;
  const text = (name: string) => (typeof data[name] === "string" ? data[name] : null);
  switch (kind) {
    case "rollout":
      return `rollout ${rollout} for ${data["deployments"]}${text("description") === null ? "" : `: ${text("description")}`}`;
    case "deployment":
      return `${agent} ${text("state")}${text("reason") === null ? ` ${change.storePath}` : `: ${text("reason")}`}`;
    case "late-outcome":
      return `${agent} ${text("state")}; the device said later: ${text("outcome")}: ${text("reason")}`;
    case "progress":
      return text("stalledSince") === null
        ? `${agent} ${text("state")}: makes progress again`
        : `${agent} ${text("state")}: no progress since ${text("stalledSince")}`;
    case "agent":
      return `agent ${text("name") ?? agent} ${text("change")}`;
    default:
      return `${kind} ${JSON.stringify(data)}`;
  }
}
