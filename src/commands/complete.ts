/**
 * `nixdeploy complete LINE`: what may come next on a command line, one candidate a line, `VALUE<tab>description`; a line
 * `:files` or `:directories` says that the shell's own files belong there. The scripts of `nixdeploy completion` call it.
 *
 * It is on nobody's screen, so nothing of it may wait or complain: what the coordinator does not say within
 * {@link ASK_MAX_MS} is left out.
 */
import type { AdministrationClient } from "../client/api/administration.ts";
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { parseWorkspaceName } from "../names.ts";
import { storePathName } from "../nix/store-path.ts";
import { cleanPlain } from "../printable.ts";
import { type CommandEntry, defineNixdeployCommand, type NixdeployCommand } from "./command-line/args.ts";
import { afterProgram, splitCommandLine } from "./command-line/command-line.ts";
import type { CommandContext } from "./command-line/context.ts";
import type { ValueKind } from "./completion-values.ts";
import { loadLogins } from "./logins.ts";
import { openAdministration, openCoordinator } from "./open-coordinator.ts";
import { type Candidate, type CompletionPlan, planCompletion } from "./plan-completion.ts";

const PROGRAM = "nixdeploy";
/** From a key to its effect. */
const ASK_MAX_MS = 1_500;
const ROLLOUTS_MAX = 100;

/** @param commands all that there are */
export function createComplete(commands: () => readonly CommandEntry[]): NixdeployCommand {
  return defineNixdeployCommand({
    name: "complete",
    summary: "Say what may come next on a command line (for shells)",
    args: {},
    positionals: {
      line: { label: "LINE", description: "The command line up to the cursor, the program first", required: true },
    },
    async run({ args, context }) {
      const line = afterProgram(splitCommandLine(args.line), PROGRAM);
      if (line === null) return;
      const plan = await planCompletion(line, commands());
      const candidates = [...plan.candidates, ...(await askForValues(context, plan, line.current))];
      const lines = [
        ...(plan.files === null ? [] : [`:${plan.files}`]),
        ...candidates.map(({ value, description }) => `${value}\t${cleanPlain(description)}`),
      ];
      if (lines.length > 0) await context.stdout.write(`${lines.join("\n")}\n`);
    },
  });
}

async function askForValues(
  context: CommandContext,
  plan: CompletionPlan,
  typed: string,
): Promise<readonly Candidate[]> {
  if (plan.values.length === 0) return [];
  const over = new AbortController();
  const signal = AbortSignal.any([context.signal, over.signal]);
  const late = context.clock.sleep(ASK_MAX_MS, signal).then(
    () => [],
    () => [],
  );
  const asking = Promise.all(
    plan.values.map(async ({ kind, before, after }) => {
      const found = await askForKind({ ...context, signal, urlFlag: plan.given.get("url") ?? null }, kind, plan);
      return found.map((each) => ({ ...each, value: `${before}${each.value}${after}` }));
    }),
  ).then(
    (found) => found.flat().filter(({ value }) => value.startsWith(typed)),
    // No coordinator, no token, not this right: then there is nothing to offer.
    () => [],
  );
  try {
    return await Promise.race([asking, late]);
  } finally {
    over.abort(new Error("the line is completed"));
  }
}

async function askForKind(
  context: CommandContext,
  kind: ValueKind,
  { given }: CompletionPlan,
): Promise<readonly Candidate[]> {
  if (kind === "logins")
    return (await loadLogins(context.env)).logins.map(({ url }) => ({ value: url, description: "" }));
  const named = given.get("workspace");
  const workspace = named === undefined ? undefined : parseWorkspaceName(named);
  const dataDir = given.get("data-dir");
  if (kind === "rollouts") {
    await using coordinator = await openCoordinator(context, "activate");
    return await listRollouts(coordinator, { workspace, signal: context.signal });
  }
  await using coordinator =
    dataDir === undefined ? await openCoordinator(context, "activate") : await openAdministration(context, dataDir);
  return await LISTS[kind](coordinator, { workspace, signal: context.signal });
}

type Asked = { readonly workspace: ReturnType<typeof parseWorkspaceName> | undefined; readonly signal: AbortSignal };
type List = (coordinator: AdministrationClient, asked: Asked) => Promise<readonly Candidate[]>;

const LISTS: Readonly<Record<Exclude<ValueKind, "logins" | "rollouts">, List>> = {
  async agents(coordinator, { workspace, signal }) {
    const agents = await coordinator.listAgents({ workspace }, signal);
    const names = agents.map(({ name, contact, labels }) => {
      const all = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
      return { value: name, description: [contact, ...all].join(" ") };
    });
    return names;
  },
  async workspaces(coordinator, { signal }) {
    const workspaces = await coordinator.listWorkspaces(signal);
    return workspaces.map(({ name }) => ({ value: name, description: "" }));
  },
  async caches(coordinator, { workspace, signal }) {
    const caches = await coordinator.listCaches(workspace, signal);
    return caches.map((cache) => ({ value: cache.name, description: `of the workspace ${cache.workspace}` }));
  },
  async tokens(coordinator, { workspace, signal }) {
    const tokens = (await coordinator.listTokens(workspace, signal)).filter(({ revokedAt }) => revokedAt === null);
    return tokens.map(({ id, kind, description }) => ({ value: id, description: `${kind} ${description}`.trim() }));
  },
};

/** The latest, by what they did. */
async function listRollouts(
  coordinator: CoordinatorClient,
  { workspace, signal }: Asked,
): Promise<readonly Candidate[]> {
  const deployments = await coordinator.listDeployments({ workspace, limit: ROLLOUTS_MAX }, signal);
  const rollouts = new Map<string, string>();
  for (const { rollout, agent, state, storePath } of deployments) {
    const before = rollouts.get(rollout);
    const text = `${agent} ${state} ${storePathName(storePath)}`;
    rollouts.set(rollout, before === undefined ? text : `${before.replace(/ and others$/, "")} and others`);
  }
  return [...rollouts].map(([value, description]) => ({ value, description }));
}
