/**
 * The page that GitHub Actions (and Forgejo) shows for a step: what came of a rollout, what it changed, and the last lines of
 * what failed, in Markdown. Pure. Whatever a device said is escaped, so that it is text and nothing else.
 */
import type { DeploymentId } from "../../names.ts";
import { cleanLine, cleanPlain, stripColors } from "../../printable.ts";
import { formatDuration } from "../../quantity.ts";
import { standingOf } from "../follow/follow-state.ts";
import type { RolloutOutcome, RolloutResult } from "../follow/rollout-result.ts";
import { formatOrigin } from "../origin.ts";
import { describeDiff, formatAgents, formatVersions, groupPlan, KINDS, type PlanGroup } from "../plan-text.ts";

export type StepSummary = {
  readonly result: RolloutResult;
  /** The last lines of those that failed. */
  readonly logs: ReadonlyMap<DeploymentId, readonly string[]>;
};

const ROWS_MAX = 200;
const ROWS_BYTES_MAX = 150_000;
/** The runner takes no page of a step that is larger than 1 MiB, and a step may have several rollouts. */
const PAGE_BYTES_MAX = 400_000;
const GROUPS_MAX = 20;
/** What failed, and why, is what people come for. */
const GROUPS_BYTES_MAX = 100_000;
const CHANGES_MAX = 200;
const REASON_LENGTH_MAX = 1_000;
const LINE_LENGTH_MAX = 500;
const MARKS: Readonly<Record<RolloutOutcome, string>> = {
  succeeded: "✅",
  queued: "⏳",
  running: "⏳",
  failed: "❌",
};

export function formatStepSummary({ result, logs }: StepSummary): string {
  const { outcome, plan } = result;
  const origin = formatOrigin(result.origin);
  const parts = [
    `### ${MARKS[outcome]} Deployment ${outcome}: [${result.id}](${result.url})`,
    ...(result.description === null ? [] : [escapeMarkdown(result.description)]),
    formatTable(result),
    ...(plan === null ? [] : takeBytes(groupPlan(plan).slice(0, GROUPS_MAX).map(formatGroup), GROUPS_BYTES_MAX)),
    ...result.deployments.flatMap(({ id, agent, state, contact }) => {
      const lines = standingOf(state, contact) === "bad" ? logs.get(id) : undefined;
      return lines === undefined ? [] : [formatLog(agent, lines)];
    }),
  ];
  const fitting = takeBytes(parts, PAGE_BYTES_MAX);
  const end = [
    ...(fitting.length === parts.length ? [] : ["There is more than this page can take: see the log of the step."]),
    ...(origin === "" ? [] : [`<sub>${escapeMarkdown(origin)}</sub>`]),
  ];
  return `${[...fitting, ...end].join("\n\n")}\n\n`;
}

/** The first ones that are together no larger. */
function takeBytes(parts: readonly string[], bytesMax: number): readonly string[] {
  let bytes = 0;
  const end = parts.findIndex((part) => {
    bytes += Buffer.byteLength(part);
    return bytes > bytesMax;
  });
  return end === -1 ? parts : parts.slice(0, end);
}

function formatTable({ deployments }: RolloutResult): string {
  // What went wrong comes first, because long tables are cut.
  const rank = (outcome: string) => (["succeeded", "queued"].includes(outcome) ? 1 : 0);
  const sorted = [...deployments].sort((a, b) => rank(a.outcome) - rank(b.outcome));
  const all = sorted.slice(0, ROWS_MAX).map(({ agent, outcome, durationMs, reason, url }) => {
    const duration = durationMs === null ? "-" : formatDuration(durationMs);
    return `| [${escapeMarkdown(agent)}](${url}) | ${outcome} | ${duration} | ${escapeMarkdown(reason ?? "")} |`;
  });
  const rows = takeBytes(all, ROWS_BYTES_MAX);
  const rest = deployments.length - rows.length;
  const more = rest === 0 ? [] : [`| and ${rest} more | | | |`];
  return ["| agent | outcome | duration | reason |", "| --- | --- | --- | --- |", ...rows, ...more].join("\n");
}

function formatGroup({ agents, outcome }: PlanGroup): string {
  const whom = escapeMarkdown(formatAgents(agents, 10));
  if (outcome.kind === "same") return `**${whom}** ran it already`;
  if (outcome.kind === "unknown") return `**${whom}**: cannot compare: ${escapeMarkdown(outcome.why)}`;
  const { diff } = outcome;
  const rows = diff.changes
    .slice(0, CHANGES_MAX)
    .map(
      (change) =>
        `| ${KINDS[change.kind].word} | ${escapeMarkdown(change.name)} | ${escapeMarkdown(formatVersions(change))} |`,
    );
  const omitted = diff.changes.length - rows.length + diff.changesOmitted;
  const more = omitted === 0 ? [] : [`| | and ${omitted} more | |`];
  const head = `<details><summary><b>${whom}</b>: ${escapeMarkdown(describeDiff(diff))}</summary>`;
  if (rows.length === 0) return `${head}\n\n</details>`;
  const table = ["| | package | versions |", "| --- | --- | --- |", ...rows, ...more].join("\n");
  return `${head}\n\n${table}\n\n</details>`;
}

/** In a block of HTML without empty lines, in which Markdown means nothing. */
function formatLog(agent: string, lines: readonly string[]): string {
  const clean = lines.map((line) => stripColors(cleanLine(line)).slice(0, LINE_LENGTH_MAX));
  const text = clean.map((line) => escapeHtml(line) || " ").join("\n");
  return `<details><summary>Log of ${escapeMarkdown(agent)}</summary>\n<pre>${text}</pre>\n</details>`;
}

/** What begins a list, a rule, or the underline of a heading. */
const BLOCK = /^(?:[-+=]|\p{N}+[.)](?= |$))/u;
/** What is linked without any sign around it. */
const BARE_LINK = /www\./gi;

/**
 * Every character that Markdown (also GitHub's: math between "$") or HTML could take for something, as an entity; on one line.
 */
export function escapeMarkdown(text: string): string {
  const line = cleanPlain(text).slice(0, REASON_LENGTH_MAX);
  return line
    .replaceAll(/[^\p{L}\p{N} .,;()/+→↑↓…="'?%-]/gu, toEntity)
    .replace(BLOCK, (start) => `${start.slice(0, -1)}${toEntity(start.slice(-1))}`)
    .replaceAll(BARE_LINK, (start) => `${start.slice(0, -1)}${toEntity(".")}`);
}

function toEntity(character: string): string {
  return `&#${character.codePointAt(0)};`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
