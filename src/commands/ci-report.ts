/**
 * What GitHub Actions, Forgejo and Gitea are told of a rollout besides the log: annotations, the page of the step, and its
 * outputs. Nothing anywhere else. That any of it cannot be written is said, and changes nothing.
 */
import { appendFile } from "node:fs/promises";
import { formatStepSummary } from "../client/ci/step-summary.ts";
import { standingOf } from "../client/follow/follow-state.ts";
import type { RolloutResult } from "../client/follow/rollout-result.ts";
import { describeError, NixdeployError } from "../errors.ts";
import type { DeploymentId } from "../names.ts";
import { cleanPlain } from "../printable.ts";
import type { CommandContext } from "./command-line/context.ts";
import { formatAnnotation, formatOutputs } from "./terminal/workflow-commands.ts";

/** GitHub shows as many of a step. */
const ANNOTATIONS_MAX = 10;

type Reporting = Pick<CommandContext, "workflow" | "env" | "log" | "random">;

export async function reportRollout(
  context: Reporting,
  report: { readonly result: RolloutResult; readonly logs: ReadonlyMap<DeploymentId, readonly string[]> },
): Promise<void> {
  const { workflow } = context;
  if (workflow === null) return;
  const { result } = report;
  const bad = result.deployments.filter(({ state, contact }) => standingOf(state, contact) === "bad");
  const counted = bad.slice(0, bad.length > ANNOTATIONS_MAX ? ANNOTATIONS_MAX - 1 : ANNOTATIONS_MAX);
  for (const { agent, state, reason, url } of counted) {
    const text = `${cleanPlain(reason ?? "no reason was given")}\n${url}`;
    await workflow.write(formatAnnotation({ level: "error", title: `${agent}: ${state}`, text }));
  }
  if (bad.length > counted.length) {
    const title = `and ${bad.length - counted.length} more`;
    await workflow.write(formatAnnotation({ level: "error", title, text: result.url }));
  }
  const count = (outcome: string) => String(result.deployments.filter((each) => each.outcome === outcome).length);
  await append(context, "GITHUB_STEP_SUMMARY", formatStepSummary(report));
  await writeOutputs(context, {
    rollout: result.id,
    url: result.url,
    outcome: result.outcome,
    succeeded: count("succeeded"),
    queued: count("queued"),
    failed: String(bad.length),
    "failed-agents": bad.map(({ agent }) => agent).join(" "),
  });
}

/** Of a rollout that is only started. */
export async function reportStarted(
  context: Reporting,
  rollout: { readonly id: string; readonly url: string },
): Promise<void> {
  if (context.workflow === null) return;
  await append(context, "GITHUB_STEP_SUMMARY", `### ⏳ Deployment started: [${rollout.id}](${rollout.url})\n\n`);
  await writeOutputs(context, { rollout: rollout.id, url: rollout.url, outcome: "running" });
}

/** Runs what may be refused before anything is started; a refusal is an annotation too. */
export async function reportRefusal<Value>(context: Reporting, run: () => Promise<Value>): Promise<Value> {
  try {
    return await run();
  } catch (error) {
    if (context.workflow !== null && error instanceof NixdeployError && error.kind !== "interrupted") {
      const lines = [error.message, ...error.details, ...(error.hint === undefined ? [] : [error.hint])];
      const text = lines.map(cleanPlain).join("\n");
      await context.workflow.write(formatAnnotation({ level: "error", title: "nothing was deployed", text }));
      await writeOutputs(context, { outcome: "refused" });
    }
    throw error;
  }
}

async function writeOutputs(context: Reporting, values: Readonly<Record<string, string>>): Promise<void> {
  await append(context, "GITHUB_OUTPUT", formatOutputs(values, `end-${drawToken(context)}`));
}

/** What nobody can guess. */
export function drawToken({ random }: Pick<CommandContext, "random">): string {
  return Buffer.from(random.bytes(16)).toString("hex");
}

async function append({ env, log }: Reporting, variable: string, text: string): Promise<void> {
  const path = env[variable] ?? "";
  if (path === "") return;
  try {
    await appendFile(path, text);
  } catch (error) {
    log.warn(`cannot write to ${path} (${variable}): ${describeError(error)}`);
  }
}
