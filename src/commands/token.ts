/** `nixdeploy token`: credentials of the coordinator. */
import { TOKEN_DESCRIPTION_LENGTH_MAX, TOKEN_USES_MAX, type TokenDto } from "../api/tokens.ts";
import { NixdeployError } from "../errors.ts";
import { parseAgentName, parseTokenId } from "../names.ts";
import { TOKEN_KINDS } from "../token.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import { parseLine } from "./command-line/description.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";
import { workspaceArg } from "./workspace-arg.ts";

const create = defineNixdeployCommand({
  name: "token create",
  summary: "Make a token and print it, this once",
  details: "Only the token goes to standard output. The coordinator keeps no more than its hash.",
  examples: [
    { comment: "For the devices of a fleet", command: "nixdeploy token create --kind agent" },
    { comment: "For one device, once", command: "nixdeploy token create --kind agent --agent nuc --uses 1" },
    { comment: "For CI, until spring", command: "nixdeploy token create --kind push --expires 90d --description CI" },
    {
      comment: "On the coordinator's own host, without a token",
      command: "nixdeploy token create --kind admin --data-dir /var/lib/nixdeploy/server",
    },
  ],
  args: {
    kind: { type: "enum", options: TOKEN_KINDS, required: true, description: "What it is good for" },
    workspace: workspaceArg("Where it is good (default: the token's, else default)"),
    global: {
      type: "boolean",
      description: "Of kind admin: good for every workspace, and for making and deleting them",
    },
    description: {
      type: "string",
      description: "What it is for, for people",
      parse: (text) => parseLine(text, { lengthMax: TOKEN_DESCRIPTION_LENGTH_MAX }),
    },
    expires: { type: "duration", description: "How long it is good, such as 90d (default: until revoked)" },
    agent: {
      type: "string",
      valueHint: "NAME",
      parse: parseAgentName,
      description: "Of kind agent: the only agent that it admits",
    },
    uses: { type: "integer", min: 1, max: TOKEN_USES_MAX, description: "Of kind agent: how many agents it admits" },
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    if (args.kind !== "agent" && (args.agent ?? args.uses) !== undefined) {
      throw new NixdeployError("usage", "cannot make the token: --agent and --uses are for --kind agent");
    }
    if (args.global && (args.kind !== "admin" || args.workspace !== undefined)) {
      throw new NixdeployError("usage", "cannot make the token: --global is for --kind admin, without --workspace");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const request = {
      kind: args.kind,
      ...(args.workspace === undefined ? {} : { workspace: args.workspace }),
      ...(args.global ? { global: true } : {}),
      ...(args.description === undefined ? {} : { description: args.description }),
      ...(args.expires === undefined ? {} : { expiresInMs: args.expires }),
      ...(args.agent === undefined ? {} : { agent: args.agent }),
      ...(args.uses === undefined ? {} : { usesMax: args.uses }),
    };
    const token = await coordinator.createToken(request, context.signal);
    await printResult(context, { json: token, text: token.token });
  },
});

const list = defineNixdeployCommand({
  name: "token list",
  summary: "List the tokens",
  args: {
    workspace: workspaceArg("Only those of this workspace"),
    dataDir: DATA_DIR_ARG,
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const tokens = await coordinator.listTokens(args.workspace, context.signal);
    const header = ["id", "kind", "workspace", "created", "expires", "last used", "admits", "description"];
    await printResult(context, { json: { tokens }, text: formatTable(header, tokens.map(formatRow)) });
  },
});

const revoke = defineNixdeployCommand({
  name: "token revoke",
  summary: "Revoke a token, with immediate effect",
  details:
    "Revoking an agent token ends new enrolments only: agents that it admitted keep working. " +
    "`nixdeploy agents --admitted-by ID` shows them, and `agents remove --admitted-by ID` removes them.",
  args: { dataDir: DATA_DIR_ARG },
  positionals: {
    id: { label: "ID", description: "As `token list` shows it", required: true, parse: parseTokenId },
  },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    await coordinator.revokeToken(args.id, context.signal);
    await printResult(context, { json: { id: args.id, revoked: true }, text: "" });
    context.log.info(`revoked the token ${args.id}`);
  },
});

export const command = defineNixdeployGroup({
  name: "token",
  summary: "Make, list and revoke tokens",
  commands: [create, list, revoke],
});

function formatRow(token: TokenDto): string[] {
  const expires = token.revokedAt === null ? (token.expiresAt ?? "never") : "revoked";
  const times = [token.createdAt, expires, token.lastUsedAt ?? "never"].map(formatDay);
  return [token.id, token.kind, token.workspace ?? "all", ...times, formatAdmission(token), token.description];
}

/** What a token of kind agent admits, and has admitted; "" for others. */
function formatAdmission({ kind, agent, uses, usesMax }: TokenDto): string {
  if (kind !== "agent") return "";
  const count = usesMax === null ? String(uses) : `${uses} of ${usesMax}`;
  return agent === null ? count : `${agent} (${count})`;
}

/** `2026-01-31`, out of an ISO time; other words stay. */
function formatDay(text: string): string {
  return /^\d{4}-/.test(text) ? text.slice(0, 10) : text;
}
