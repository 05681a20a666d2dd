/** `nixdeploy webhook`: where a workspace's changes are sent to; what became of them is beside this file. */
import { OLD_SECRET_MAX_MS, WEBHOOK_EVENTS, type WebhookDto, type WebhookEvent } from "../api/webhooks.ts";
import { NixdeployError } from "../errors.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import { parseDuration } from "./command-line/duration.ts";
import { readSecretFile } from "./command-line/environment.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { printResult } from "./terminal/output.ts";
import { deliveries, formatTime, redeliver, test, WORKSPACE } from "./webhook-deliveries.ts";

const set = defineNixdeployCommand({
  name: "webhook set",
  summary: "Send a workspace's changes to an address",
  details:
    "Each delivery is signed as Standard Webhooks has it (docs/operating.md shows how to verify one). The first time a " +
    "secret is made and printed, this once; only the secret goes to standard output. Later the one that there is stays. " +
    "A webhook that is given another secret signs by both for a while, so that receivers can go over when it suits them. " +
    "Another address gets what waited for the one before. What is not said stays as it is.",
  examples: [
    {
      comment: "How deployments end, and what begins",
      command: "nixdeploy webhook set https://hooks.example.org/nixdeploy --events rollout,outcome",
    },
    {
      comment: "With a secret of your own",
      command: "nixdeploy webhook set https://hooks.example.org/nixdeploy --secret-file FILE",
    },
    {
      comment: "Another secret; receivers have a week to take it up",
      command: "nixdeploy webhook set https://hooks.example.org/nixdeploy --new-secret --old-secret-for 7d",
    },
  ],
  args: {
    events: {
      type: "string",
      valueHint: "KINDS",
      description: `Only these, separated by commas: ${WEBHOOK_EVENTS.join(", ")}; or all (default: as before, else all)`,
      parse: parseEvents,
    },
    secretFile: { type: "string", valueHint: "FILE", description: "A file with the secret: 24 to 64 bytes in base64" },
    newSecret: { type: "boolean", description: "Make another secret and print it" },
    oldSecretForMs: {
      type: "string",
      flag: "old-secret-for",
      valueHint: "DURATION",
      description: "How long the secret before signs, too (default: 24h); none: not any more",
      parse: parseOldSecretFor,
    },
    workspace: WORKSPACE,
    dataDir: DATA_DIR_ARG,
  },
  positionals: {
    // Not `url`, which is the coordinator's.
    receiver: { label: "URL", description: "Of the receiver, http or https", required: true, parse: parseReceiver },
  },
  async run({ args, context }) {
    const { receiver: url, events, secretFile, newSecret, oldSecretForMs } = args;
    if (secretFile !== undefined && newSecret) {
      throw new NixdeployError("usage", "cannot set the webhook: give one of --secret-file and --new-secret");
    }
    const secret = secretFile === undefined ? undefined : (await readSecretFile(secretFile, "--secret-file")).trim();
    const request = {
      url,
      ...(events === undefined ? {} : { events }),
      ...(secret === undefined ? {} : { secret }),
      ...(newSecret ? { newSecret } : {}),
      ...(oldSecretForMs === undefined ? {} : { oldSecretForMs }),
    };
    await using coordinator = await openAdministration(context, args.dataDir);
    const saved = await coordinator.saveWebhook(args.workspace, request, context.signal);
    await printResult(context, { json: saved, text: saved.secret ?? "" });
    const what = saved.events?.join(", ") ?? "all changes";
    context.log.info(`the webhook of ${saved.workspace} sends ${what} to ${saved.url}`);
    if (saved.secret !== null) context.log.info("the secret is shown this once; receivers need it to verify");
    const { oldSecretUntil } = saved;
    if (oldSecretUntil !== null) {
      context.log.info(`the secret before signs as well until ${formatTime(oldSecretUntil)} UTC`);
    }
  },
});

const show = defineNixdeployCommand({
  name: "webhook show",
  summary: "Show where a workspace's changes are sent to, and whether they get there",
  args: { workspace: WORKSPACE, dataDir: DATA_DIR_ARG },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const webhook = await coordinator.loadWebhook(args.workspace, context.signal);
    await printResult(context, { json: webhook, text: formatWebhook(webhook) });
  },
});

const remove = defineNixdeployCommand({
  name: "webhook remove",
  summary: "Send a workspace's changes nowhere any more",
  details: "What waits is not sent, and the log of deliveries is forgotten.",
  args: { workspace: WORKSPACE, dataDir: DATA_DIR_ARG },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    await coordinator.removeWebhook(args.workspace, context.signal);
    await printResult(context, { json: { removed: true }, text: "" });
    context.log.info("removed the webhook");
  },
});

export const command = defineNixdeployGroup({
  name: "webhook",
  summary: "Send changes to an address of yours, signed",
  commands: [set, show, remove, test, deliveries, redeliver],
});

/** Null: all. */
function parseEvents(text: string): WebhookEvent[] | null {
  if (text.trim() === "all") return null;
  return text.split(",").map((word) => {
    const event = WEBHOOK_EVENTS.find((known) => known === word.trim());
    if (event === undefined) throw new Error(`each is one of ${WEBHOOK_EVENTS.join(", ")}, or the word all`);
    return event;
  });
}

function parseOldSecretFor(text: string): number {
  if (text === "none") return 0;
  const forMs = parseDuration(text);
  if (forMs > OLD_SECRET_MAX_MS) throw new Error("it is at most 30d, or none");
  return forMs;
}

/** The coordinator looks at the rest. A password in it would stand in the shell's history already. */
function parseReceiver(text: string): string {
  const url = URL.parse(text);
  if (url?.protocol !== "https:" && url?.protocol !== "http:") throw new Error("it is no http:// or https:// address");
  return text;
}

function formatWebhook(webhook: WebhookDto): string {
  const { workspace, url, events, oldSecretUntil, failingSince, nextAttemptAt } = webhook;
  return [
    `workspace:     ${workspace}`,
    `url:           ${url}`,
    `events:        ${events?.join(", ") ?? "all"}`,
    ...(oldSecretUntil === null ? [] : [`old secret:    until ${formatTime(oldSecretUntil)} UTC`]),
    ...(failingSince === null ? [] : [`failing since: ${formatTime(failingSince)}`]),
    ...(nextAttemptAt === null ? [] : [`next attempt:  ${formatTime(nextAttemptAt)}`]),
  ].join("\n");
}
