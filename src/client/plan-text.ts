/** What a rollout would change, in words. Pure; agents that go from the same to the same are shown together. */
import type { ClosureDiffDto, RolloutPlanDto } from "../api/rollout-plans.ts";
import type { ChangeKind } from "../nix/closure-diff.ts";
import { formatBytes, formatCount } from "../quantity.ts";

export type PlanGroup = {
  /** At least one. */
  readonly agents: readonly string[];
  readonly outcome:
    | { readonly kind: "compared"; readonly diff: ClosureDiffDto }
    | { readonly kind: "same"; readonly path: string }
    | { readonly kind: "unknown"; readonly to: string; readonly why: string };
};

export type PlanTextLimits = { readonly groups: number; readonly changes: number; readonly agents: number };

/** What fits before a rollout's own lines, and what somebody gets who asks for nothing else. */
export const BRIEF: PlanTextLimits = { groups: 10, changes: 25, agents: 6 };
export const WHOLE: PlanTextLimits = { groups: 200, changes: 1_000, agents: 50 };

/** In the order of the agents. */
export function groupPlan(plan: RolloutPlanDto): readonly PlanGroup[] {
  const groups = new Map<string, { agents: string[]; outcome: PlanGroup["outcome"] }>();
  for (const { agent, from, to, diff: index, why } of plan.agents) {
    const key = `${index} ${why} ${from} ${to}`;
    const known = groups.get(key);
    if (known !== undefined) {
      known.agents.push(agent);
      continue;
    }
    const diff = index === null ? undefined : plan.diffs[index];
    const outcome: PlanGroup["outcome"] =
      from === to
        ? { kind: "same", path: to }
        : diff === undefined
          ? { kind: "unknown", to, why: why ?? "the coordinator does not say why" }
          : { kind: "compared", diff };
    groups.set(key, { agents: [agent], outcome });
  }
  return [...groups.values()];
}

/** Lines for people. */
export function formatPlan(plan: RolloutPlanDto, limits: PlanTextLimits): readonly string[] {
  const groups = groupPlan(plan);
  const shown = groups.slice(0, limits.groups).flatMap((group) => formatGroup(group, limits));
  const rest = groups.slice(limits.groups);
  if (rest.length === 0) return shown;
  const agents = rest.reduce((sum, group) => sum + group.agents.length, 0);
  const bytes = rest.reduce((sum, group) => sum + fetchBytesOf(group), 0);
  const line = `and ${formatCount(agents, "more agent")}: ${formatBytes(bytes)} to download altogether (all of it: --dry-run --json)`;
  return [...shown, line];
}

function formatGroup(group: PlanGroup, limits: PlanTextLimits): readonly string[] {
  const { outcome } = group;
  const whom = formatAgents(group.agents, limits.agents);
  if (outcome.kind === "same") return [`${whom}: ${group.agents.length === 1 ? "runs" : "run"} it already`];
  if (outcome.kind === "unknown") return [`${whom}: cannot compare: ${outcome.why}`];
  const { changes } = outcome.diff;
  const rows = changes.slice(0, limits.changes);
  const width = Math.max(0, ...rows.map(({ name }) => name.length));
  const lines = rows.map(
    (change) => `  ${KINDS[change.kind].sign} ${change.name.padEnd(width)}  ${formatVersions(change)}`,
  );
  const omitted = changes.length - rows.length + outcome.diff.changesOmitted;
  const more = omitted === 0 ? [] : [`  and ${omitted} more`];
  return [`${whom}: ${describeDiff(outcome.diff)}`, ...lines.map((line) => line.trimEnd()), ...more];
}

/** `nuc, tv`, `a, b, c and 40 more` */
export function formatAgents(agents: readonly string[], max: number): string {
  const rest = agents.length - max;
  return rest <= 0 ? agents.join(", ") : `${agents.slice(0, max).join(", ")} and ${rest} more`;
}

export const KINDS: Readonly<Record<ChangeKind, { readonly sign: string; readonly word: string }>> = {
  up: { sign: "↑", word: "up" },
  down: { sign: "↓", word: "down" },
  changed: { sign: "~", word: "changed" },
  added: { sign: "+", word: "added" },
  removed: { sign: "-", word: "removed" },
};

/** `3 up, 1 added, 12 rebuilt; 1.2 GB → 1.3 GB (+100.0 MB); 120.0 MB to download (35 paths)` */
export function describeDiff(diff: ClosureDiffDto): string {
  return [describeChanges(diff), describeSize(diff), describeDownload(diff)].join("; ");
}

function describeChanges({ changes, changesOmitted, rebuilt }: ClosureDiffDto): string {
  const counts = Object.entries(KINDS).map(([kind, { word }]): [number, string] => [
    changes.filter((change) => change.kind === kind).length,
    word,
  ]);
  const all: readonly [number, string][] = [...counts, [changesOmitted, "more changed"], [rebuilt, "rebuilt"]];
  const told = all.filter(([count]) => count > 0).map(([count, word]) => `${count} ${word}`);
  return told.length === 0 ? "no package changes" : told.join(", ");
}

function describeSize({ sizeBeforeBytes, sizeAfterBytes }: ClosureDiffDto): string {
  const delta = sizeAfterBytes - sizeBeforeBytes;
  const sign = delta < 0 ? "-" : "+";
  return `${formatBytes(sizeBeforeBytes)} → ${formatBytes(sizeAfterBytes)} (${sign}${formatBytes(Math.abs(delta))})`;
}

function describeDownload({ fetchBytes, fetchPaths }: ClosureDiffDto): string {
  return fetchPaths === 0
    ? "nothing to download"
    : `${formatBytes(fetchBytes)} to download (${formatCount(fetchPaths, "path")})`;
}

/** `1.0 → 1.1`; one side only for what comes or goes; "" for what has no version. */
export function formatVersions({ before, after }: ClosureDiffDto["changes"][number]): string {
  const sides = [before, after].map((versions) => versions.join(", ")).filter((text) => text !== "");
  return sides.join(" → ");
}

function fetchBytesOf({ agents, outcome }: PlanGroup): number {
  return outcome.kind === "compared" ? outcome.diff.fetchBytes * agents.length : 0;
}
