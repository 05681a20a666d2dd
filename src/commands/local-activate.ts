/** `nixdeploy local activate` and `local rollback`: what somebody does at the machine when nobody else can. */
import { userInfo } from "node:os";
import type { LocalTarget } from "../agent/local/local-target.ts";
import type { Generation } from "../agent/machine/profile-link.ts";
import { requireStorePath } from "../client/store-argument.ts";
import { NixdeployError } from "../errors.ts";
import type { StorePath } from "../nix/store-path.ts";
import { cleanLine } from "../printable.ts";
import type { ReportEntry } from "../protocol.ts";
import { type ArgValues, defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { findTarget, TARGET_ARGS } from "./local-args.ts";
import { POLICY_ARGS, readPolicy } from "./policy-args.ts";
import { printResult } from "./terminal/output.ts";

const ARGS = {
  ...TARGET_ARGS,
  ...POLICY_ARGS,
  wait: { type: "boolean", description: "Wait while another activation is in progress, instead of an error" },
  awaitVisit: {
    type: "boolean",
    description: "Somebody must come back in within the confirm window: nixdeploy local confirm PATH",
  },
} as const;
type Values = ArgValues<typeof ARGS, Readonly<Record<never, never>>>;

export const activate = defineNixdeployCommand({
  name: "local activate",
  summary: "Activate a store path on this machine, without the coordinator",
  details:
    "The same steps as any deployment, with the same way back; health checks and failed units decide, and no login to the " +
    "coordinator is asked for. The agent tells the coordinator later. PATH must be in this machine's store. " +
    "When this command is interrupted or killed, the activation goes on.",
  examples: [
    { comment: "What was built here", command: "nixdeploy local activate ./result" },
    { comment: "Only until the next reboot", command: "nixdeploy local activate --mode test ./result" },
  ],
  args: ARGS,
  positionals: { path: { label: "PATH", description: "A store path, or a link to one", required: true } },
  async run({ args, context }) {
    const storePath = await requireStorePath(args.path, process.cwd());
    const target = await findTarget(args, context);
    await run({ args, context, target, storePath, typed: "nixdeploy local activate" });
  },
});

export const rollback = defineNixdeployCommand({
  name: "local rollback",
  summary: "Activate what the profile named before, without the coordinator",
  details:
    "The latest generation before the present one whose store path is another. It becomes a new generation: to go back " +
    "further, or again, name one with --to (`nixdeploy local status` lists them).",
  args: {
    ...ARGS,
    to: { type: "string", valueHint: "GENERATION|PATH", description: "This one instead" },
  },
  async run({ args, context }) {
    const { listGenerations, readProfile } = await import("../agent/machine/profile-link.ts");
    const target = await findTarget(args, context);
    const generations = await listGenerations(target.profilePath);
    const present = (await readProfile(target.profilePath)).generation;
    const storePath = await chooseGeneration(args.to ?? null, { generations, present, target });
    await run({ args, context, target, storePath, typed: "nixdeploy local rollback" });
  },
});

export const confirm = defineNixdeployCommand({
  name: "local confirm",
  summary: "Confirm an activation that waits for somebody to come back in",
  details:
    "For whoever started it from afar with --await-visit, over a connection that was made after the switch; " +
    "`nixdeploy copy` does it by itself. Says whether it was asked for.",
  args: TARGET_ARGS,
  positionals: { path: { label: "PATH", description: "What is being activated", required: true } },
  async run({ args, context }) {
    const storePath = await requireStorePath(args.path, process.cwd());
    const { confirmVisit } = await import("../agent/local/local-confirm.ts");
    const { systemBootClock } = await import("../agent/machine/boot-clock.ts");
    const target = await findTarget(args, context);
    const visit = await confirmVisit({ target, storePath, bootClock: systemBootClock });
    const stage = "stage" in visit ? visit.stage : null;
    await printResult(context, {
      json: { visit: visit.kind, stage },
      text: stage === null ? visit.kind : `${visit.kind}: ${stage}`,
    });
  },
});

type Choice = {
  readonly generations: readonly Generation[];
  readonly present: number | null;
  readonly target: LocalTarget;
};

async function chooseGeneration(to: string | null, choice: Choice): Promise<StorePath> {
  const { profilePath } = choice.target;
  if (to === null) {
    const previous = findPrevious(choice);
    if (previous !== null) return previous.storePath;
    throw new NixdeployError("refused", `cannot roll back ${profilePath}: it has no earlier version`, {
      hint: "`nixdeploy local status` lists its generations; `nixdeploy local activate` takes any store path.",
    });
  }
  if (!/^[0-9]{1,15}$/.test(to)) return await requireStorePath(to, process.cwd());
  const found = choice.generations.find(({ number }) => number === Number(to));
  if (found !== undefined) return found.storePath;
  throw new NixdeployError("refused", `cannot roll back ${profilePath}: it has no generation ${to}`, {
    hint: "`nixdeploy local status` lists them.",
  });
}

/** The latest one before the present one with another store path; null when there is none. Pure. */
export function findPrevious({ generations, present }: Omit<Choice, "target">): Generation | null {
  const now = generations.find(({ number }) => number === present);
  const earlier = generations.filter(
    ({ number, storePath }) => number < (present ?? 0) && storePath !== now?.storePath,
  );
  return earlier.at(-1) ?? null;
}

async function run(options: {
  readonly args: Values;
  readonly context: CommandContext;
  readonly target: LocalTarget;
  readonly storePath: StorePath;
  readonly typed: string;
}): Promise<void> {
  const { args, context, target, storePath, typed } = options;
  const { activateOnThisMachine } = await import("../agent/local/local-machine.ts");
  context.log.info(`${target.hasAgent ? `agent ${target.name}` : "no agent"}: ${storePath} for ${target.profilePath}`);
  const request = {
    ...{ storePath, mode: args.mode, policy: readPolicy(args), mayWait: args.wait, awaitsVisit: args.awaitVisit },
    startedBy: readUserName(),
    typed: `${typed} ${storePath} --mode ${args.mode}`,
  };
  const outcome = await activateOnThisMachine(request, {
    ...{ target, clock: context.clock, random: context.random, logger: context.log, signal: context.signal },
    environment: context.env,
    onEntry: (entry) => printEntry(context, entry),
  }).catch((error: unknown) => {
    if (context.signal.aborted)
      context.log.info("what has begun goes on without this command: `nixdeploy local status`");
    throw error;
  });
  const { outcome: end, reason, exitCode, previousPath } = outcome;
  await printResult(context, {
    json: { ...{ outcome: end, reason, storePath, previousPath, exitCode }, profile: target.profilePath },
    text: `${end}: ${cleanLine(reason)}`,
  });
  if (end !== "succeeded") throw new NixdeployError("refused", `the activation ended ${end}: ${reason}`);
}

/** As `logs` prints it; with --json to the other stream, because the result is one document. */
async function printEntry(context: CommandContext, entry: ReportEntry): Promise<void> {
  if (entry.type === "phase") return context.log.info(entry.phase);
  if (entry.type === "log") await (context.json ? context.stderr : context.stdout).write(`${cleanLine(entry.text)}\n`);
}

/** Null where the system has no such name, or an odd one. */
function readUserName(): string | null {
  try {
    const { username } = userInfo();
    return /^[\w.@-]{1,64}$/.test(username) ? username : null;
  } catch {
    // A user id without a name.
    return null;
  }
}
