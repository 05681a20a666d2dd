/** `nixdeploy agents pending`, `approve` and `reject`: devices that were reinstalled, and come back with another key. */
import type { EnrolmentRequestDto } from "../api/agents.ts";
import { parseKeyFingerprint } from "../key-fingerprint.ts";
import { parseAgentName } from "../names.ts";
import { AGENTS_ARGS } from "./agents-change.ts";
import { defineNixdeployCommand, type PositionalDeclaration } from "./command-line/args.ts";
import { openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const FINGERPRINT = {
  type: "string",
  valueHint: "SHA256:BASE64",
  required: true,
  parse: parseKeyFingerprint,
  description: "Of the key, as the agent prints it on the device",
} as const;

const NAME = {
  label: "NAME",
  description: "The name that it asks for",
  required: true,
  parse: parseAgentName,
} as const satisfies PositionalDeclaration;

export const pending = defineNixdeployCommand({
  name: "agents pending",
  summary: "List the keys that ask for names that are taken",
  details:
    "A device that was reinstalled has another key. With a good agent token it may ask for its name, and an operator " +
    "decides. Of several that ask for one name the newest is kept.",
  args: AGENTS_ARGS,
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const requests = await coordinator.listAgentRequests(args.workspace, context.signal);
    const header = ["name", "fingerprint", "from", "host", "token", "asked"];
    const text = requests.length === 0 ? "" : formatTable(header, requests.map(formatRow));
    await printResult(context, { json: { requests }, text });
    if (requests.length === 0) context.log.info("no key asks for a name that is taken");
  },
});

export const approve = defineNixdeployCommand({
  name: "agents approve",
  summary: "Give an agent the key that asks for its name",
  details: "Exactly that key: compare the fingerprint on the device. The old key is refused from then on.",
  args: { ...AGENTS_ARGS, fingerprint: FINGERPRINT },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const agent = await coordinator.approveKey(decisionOf(args), context.signal);
    await printResult(context, { json: agent, text: "" });
    context.log.info(`${agent.name} has the key ${agent.keyFingerprint} now`);
  },
});

export const reject = defineNixdeployCommand({
  name: "agents reject",
  summary: "Refuse the key that asks for an agent's name, for good",
  args: { ...AGENTS_ARGS, fingerprint: FINGERPRINT },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const { name, fingerprint } = args;
    await coordinator.rejectKey(decisionOf(args), context.signal);
    await printResult(context, { json: { name, fingerprint, rejected: true }, text: "" });
    context.log.info(`rejected ${fingerprint}`);
  },
});

type Decision = Parameters<Awaited<ReturnType<typeof openAdministration>>["approveKey"]>[0];

function decisionOf({ name, fingerprint, workspace }: Decision): Decision {
  return { name, fingerprint, ...(workspace === undefined ? {} : { workspace }) };
}

function formatRow(request: EnrolmentRequestDto): string[] {
  const { name, fingerprint, address, hostName, token, requestedAt } = request;
  return [name, fingerprint, address ?? "unknown", hostName, token, requestedAt];
}
