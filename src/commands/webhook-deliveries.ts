/** `nixdeploy webhook test`, `deliveries` and `redeliver`: what became of what was sent. */
import type { WebhookDeliveryDto } from "../api/webhooks.ts";
import { NixdeployError } from "../errors.ts";
import { formatCount } from "../quantity.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

const DELIVERIES_SHOWN = 20;
const DELIVERIES_MAX = 200;

export const WORKSPACE = workspaceArg("Whose it is (default: the token's, else default)");

export const test = defineNixdeployCommand({
  name: "webhook test",
  summary: "Send a delivery without changes, now, and say what came of it",
  args: { workspace: WORKSPACE, dataDir: DATA_DIR_ARG },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const delivery = await coordinator.testWebhook(args.workspace, context.signal);
    await printResult(context, { json: delivery, text: formatDeliveries([delivery]) });
    requireDelivered(delivery);
  },
});

export const deliveries = defineNixdeployCommand({
  name: "webhook deliveries",
  summary: "List the latest deliveries, newest first",
  args: {
    limit: {
      ...{ type: "integer", min: 1, max: DELIVERIES_MAX, valueHint: "N" },
      description: `At most so many (default: ${DELIVERIES_SHOWN})`,
    },
    workspace: WORKSPACE,
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const filter = { workspace: args.workspace, limit: args.limit ?? DELIVERIES_SHOWN };
    const listed = await coordinator.listWebhookDeliveries(filter, context.signal);
    await printResult(context, { json: { deliveries: listed }, text: formatDeliveries(listed) });
  },
});

export const redeliver = defineNixdeployCommand({
  name: "webhook redeliver",
  summary: "Send a delivery again, once, under the same id",
  details: "One that is still being tried is tried at once instead, and on it goes.",
  args: { workspace: WORKSPACE, dataDir: DATA_DIR_ARG },
  positionals: {
    id: { label: "ID", description: "As `webhook deliveries` shows it", required: true, parse: parseDeliveryId },
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const what = { workspace: args.workspace, id: args.id };
    const delivery = await coordinator.redeliverWebhook(what, context.signal);
    await printResult(context, { json: delivery, text: formatDeliveries([delivery]) });
    if (delivery.state === "pending") context.log.info("it is tried now: see `nixdeploy webhook deliveries`");
    else requireDelivered(delivery);
  },
});

function parseDeliveryId(text: string): string {
  if (!/^[0-9a-z]{16}$/.test(text)) throw new Error("an id has 16 lower-case letters and digits");
  return text;
}

/** @throws NixdeployError "refused" with what the receiver said */
function requireDelivered({ error }: WebhookDeliveryDto): void {
  if (error === null) return;
  throw new NixdeployError("refused", `cannot deliver to the webhook: ${error}`);
}

function formatDeliveries(listed: readonly WebhookDeliveryDto[]): string {
  return formatTable(["id", "made", "what", "state", "attempts", "status", "took", "error"], listed.map(formatRow));
}

function formatRow(delivery: WebhookDeliveryDto): string[] {
  const { id, createdAt, kind, events, state, attempts, status, durationMs, error } = delivery;
  const what = kind === "test" ? "test" : formatCount(events.length, "event");
  const took = durationMs === null ? "" : `${durationMs} ms`;
  return [id, formatTime(createdAt), what, state, String(attempts), String(status ?? ""), took, error ?? ""];
}

/** `2026-01-31 12:00:00`, UTC. */
export function formatTime(iso: string): string {
  return iso.slice(0, 19).replace("T", " ");
}
