/** `nixdeploy doctor`: looks at everything that must be right here, and says of each fault what to do. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { type KnownAgent, listKnownAgents, readAgentFile } from "../agent/agent-file.ts";
import { readEnrolment } from "../agent/link/enrolment.ts";
import { ownProgram } from "../agent/machine/process.ts";
import { cleanEnvironment } from "../agent/machine/program-environment.ts";
import { runSmallProgram } from "../agent/machine/small-program.ts";
import { createAgentChecks } from "../doctor/agent-checks.ts";
import { createCiChecks, detectCi } from "../doctor/ci-checks.ts";
import { type CoordinatorLook, createCoordinatorChecks } from "../doctor/coordinator-checks.ts";
import { type Check, type CheckedFinding, type Finding, fault, GROUPS, ok } from "../doctor/finding.ts";
import { createNixChecks } from "../doctor/nix-checks.ts";
import { runChecks } from "../doctor/run-checks.ts";
import { createServerChecks } from "../doctor/server-checks.ts";
import { NixdeployError } from "../errors.ts";
import { parseAgentName } from "../names.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import { formatCount } from "../quantity.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { resolveStateRoot } from "./command-line/directories.ts";
import { listConfiguredTokens, resolveCoordinatorUrl } from "./coordinator-access.ts";
import { createStyle, printResult, type Style } from "./terminal/output.ts";

export const command = defineNixdeployCommand({
  name: "doctor",
  summary: "Look for what is wrong here, and say what to do about it",
  details:
    "Everywhere: the way to the coordinator, tokens, the cache, Nix. On a device also its agents, in a CI job its " +
    "variables, and with --data-dir the coordinator of this host. Changes nothing. Exit code 1 when there is a fault; " +
    "warnings are none.",
  examples: [
    { comment: "Why does it not work here?", command: "nixdeploy doctor" },
    { comment: "On the coordinator's host", command: "nixdeploy doctor --data-dir /var/lib/nixdeploy/server" },
  ],
  args: {
    dataDir: {
      type: "string",
      valueHint: "DIR",
      parse: (text) => resolve(text),
      description: "The data directory of the coordinator of this host, to look at that as well",
    },
    name: {
      type: "string",
      valueHint: "NAME",
      parse: parseAgentName,
      description: "The agent to look at (default: all of this machine)",
    },
    stateDir: {
      type: "string",
      valueHint: "DIR",
      parse: (text) => resolve(text),
      description: "The state directory of the agent, when it is not in the usual place",
    },
    only: {
      type: "string",
      repeatable: true,
      valueHint: "WHAT",
      description: "Only this group (coordinator, nix, agent, ci, server) or check, such as coordinator.clock",
    },
  },
  async run({ args, context }) {
    const all = await listChecks(context, args);
    // Once each, in the order in which they are named.
    const chosen = new Set(args.only.flatMap((what) => selectChecks(all, what)));
    const checks = args.only.length === 0 ? all : [...chosen];
    const findings = await runChecks({ checks, clock: context.clock, signal: context.signal });
    const faults = findings.filter(({ verdict }) => verdict === "fault").length;
    const json = { ok: faults === 0, findings };
    const style = createStyle({ isTerminal: context.stdout.isTerminal, env: context.env });
    await printResult(context, { json, text: formatFindings(findings, style) });
    const warnings = findings.filter(({ verdict }) => verdict === "warning").length;
    const counts = `${formatCount(faults, "fault")}, ${formatCount(warnings, "warning")}`;
    if (faults === 0) return context.log.info(`${counts}, ${formatCount(checks.length, "check")}`);
    throw new NixdeployError("refused", `cannot call this sound: ${counts}`, { hint: "What to do is said with each." });
  },
});

type Args = {
  readonly dataDir: string | undefined;
  readonly name: string | undefined;
  readonly stateDir: string | undefined;
  readonly only: readonly string[];
};

async function listChecks(context: CommandContext, args: Args): Promise<readonly Check[]> {
  const { env: environment, clock, random, signal } = context;
  const agents = await findAgents(context, args);
  const ci = detectCi(environment);
  const isServerOnly = args.dataDir !== undefined && agents.length === 0 && ci === null;
  const url = await findUrl(context, agents);
  const asked: CoordinatorLook = {
    url,
    tokens: url instanceof NixdeployError ? [] : await listConfiguredTokens(context, url.text),
    isDevice: agents.length > 0,
    isCi: ci !== null,
    ...{ environment, clock, random, signal },
  };
  const coordinator = createCoordinatorChecks(asked);
  const { findCache } = coordinator;
  const address = url instanceof NixdeployError ? null : url.text;
  const hasNix = existsSync(STORE_DIR) || asked.isDevice || asked.isCi;
  const { dataDir } = args;
  return [
    ...(isServerOnly && address === null ? [] : coordinator.checks),
    ...(isServerOnly || !hasNix ? [] : createNixChecks({ environment, clock, findCache })),
    ...agents.flatMap((agent) => createAgentChecks({ agent, environment, clock, url: address, findCache })),
    ...(ci === null ? [] : createCiChecks(environment, ci)),
    ...(dataDir === undefined
      ? []
      : createServerChecks({
          ...{ dataDirectory: dataDir, environment, clock, random },
          checkDatabase: (over) =>
            checkDatabase(context, {
              dataDir,
              isAlone: args.only.length === 1 && args.only[0] === DATABASE_CHECK,
              over,
            }),
        })),
  ];
}

async function findAgents({ env }: CommandContext, { name, stateDir }: Args): Promise<readonly KnownAgent[]> {
  const parent = join(resolveStateRoot(env), "agents");
  if (stateDir === undefined && name === undefined) return await listKnownAgents(parent);
  const directory = stateDir ?? join(parent, name ?? "");
  const agent = await readAgentFile(directory);
  if (agent !== null && (name === undefined || agent.name === name)) return [agent];
  throw new NixdeployError("not-found", `cannot look at the agent in ${directory}: there is none`, {
    hint: "It is there when the agent has been started once; --state-dir names another place.",
  });
}

/** What a command would use; on a device, else, what its agent uses. */
async function findUrl(context: CommandContext, agents: readonly KnownAgent[]): Promise<CoordinatorLook["url"]> {
  try {
    return await resolveCoordinatorUrl(context);
  } catch (error) {
    if (!(error instanceof NixdeployError)) throw error;
    for (const agent of agents) {
      // A damaged file is a finding of that agent.
      const enrolment = await readEnrolment(agent.stateDirectory).catch(() => null);
      if (enrolment !== null) return { text: enrolment.coordinatorUrl, source: `the agent ${agent.name}` };
    }
    return error;
  }
}

/** @throws NixdeployError "usage" for what names none */
export function selectChecks(checks: readonly Check[], what: string): readonly Check[] {
  const chosen = checks.filter(({ group, name }) => what === group || what === `${group}.${name}`);
  if (chosen.length > 0) return chosen;
  const isGroup = GROUPS.some((group) => group === what || what.startsWith(`${group}.`));
  throw new NixdeployError("usage", `cannot look at ${JSON.stringify(what)} only: there is no such check here`, {
    hint: isGroup
      ? `There are ${checks.map(({ group, name }) => `${group}.${name}`).join(", ") || "none"}.`
      : `The groups are ${GROUPS.join(", ")}.`,
  });
}

const DATABASE_CHECK = "server.database";
const DATABASE_MAX_MS = 115_000;
const outputSchema = z.object({
  findings: z.array(
    z.object({
      verdict: z.enum(["ok", "warning", "fault", "skipped"]),
      message: z.string(),
      hint: z.string().nullable(),
    }),
  ),
});

/** By a process of its own, since SQLite would hold up all other checks. */
async function checkDatabase(
  context: CommandContext,
  how: { readonly dataDir: string; readonly isAlone: boolean; readonly over: AbortSignal },
): Promise<readonly Finding[]> {
  if (how.isAlone) return await checkDatabaseHere(join(how.dataDir, "coordinator.db"));
  const lines: string[] = [];
  const [program = "", ...words] = ownProgram();
  const exit = await runSmallProgram({
    command: program,
    args: [...words, "doctor", "--data-dir", how.dataDir, "--only", DATABASE_CHECK, "--json"],
    environment: cleanEnvironment(context.env),
    deadlineMs: DATABASE_MAX_MS,
    clock: context.clock,
    onLine: async (stream, text) => {
      if (stream === "out") lines.push(text);
    },
  });
  const report = exit.kind === "exited" ? parseReport(lines.join("\n")) : null;
  if (report !== null) return report.findings;
  const why = exit.kind === "timed-out" ? "it took too long" : "the look at it was stopped";
  return [
    fault(`the database could not be looked through: ${why}`, "Look at its disk; `nixdeploy backup` checks it too."),
  ];
}

/** Null for what is not whole. */
function parseReport(text: string): z.output<typeof outputSchema> | null {
  try {
    return outputSchema.parse(JSON.parse(text));
  } catch {
    // It was ended, or ended by itself, before it had said everything.
    return null;
  }
}

async function checkDatabaseHere(file: string): Promise<readonly Finding[]> {
  const { quickCheckDatabase } = await import("../server/database/snapshot.ts");
  const faults = quickCheckDatabase(file);
  if (faults.length === 0) return [ok("every page of the database is sound")];
  const hint = "Stop the coordinator and restore a backup: nixdeploy restore FILE (docs/operating.md, Restore).";
  return [fault(`the database ${file} is damaged: ${faults.join("; ")}`, hint)];
}

const WORDS = { ok: "ok", warning: "warning", fault: "FAULT", skipped: "-" } as const;
const WORD_WIDTH = 7;

export function formatFindings(findings: readonly CheckedFinding[], style: Style): string {
  const paint = { ok: style.green, warning: style.yellow, fault: style.red, skipped: style.dim };
  const groups = GROUPS.filter((group) => findings.some((finding) => finding.group === group));
  const width = Math.max(0, ...findings.map(({ check }) => check.length));
  const margin = " ".repeat(WORD_WIDTH + width + 6);
  return groups
    .map((group) => {
      const lines = findings
        .filter((finding) => finding.group === group)
        .map(({ verdict, check, message, hint }) => {
          const word = paint[verdict](WORDS[verdict].padEnd(WORD_WIDTH));
          const line = `  ${word}  ${check.padEnd(width)}  ${message}`;
          return hint === null ? line : `${line}\n${margin}${style.bold("do:")} ${hint}`;
        });
      return [style.bold(group), ...lines].join("\n");
    })
    .join("\n\n");
}
