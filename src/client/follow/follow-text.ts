/**
 * What people read while a rollout is followed, and the summary at its end. Pure.
 */
import type { DeploymentDto, FollowEvent, LogLine } from "../../api/deployments.ts";
import { type DeploymentState, isTerminal } from "../../deployment.ts";
import { cleanLine } from "../../printable.ts";
import { formatBytes, formatDuration } from "../../quantity.ts";
import { UNIT_ACTIONS, type UnitAction } from "../../unit-changes.ts";
import { standingOf } from "./follow-state.ts";

/** How people read the states. */
export const STATE_WORDS: Readonly<Record<DeploymentState, string>> = {
  queued: "queued",
  offered: "offered to the agent",
  fetching: "fetching",
  activating: "activating",
  rebooting: "rebooting",
  confirming: "confirming",
  "rolling-back": "rolling back",
  succeeded: "succeeded",
  failed: "failed",
  "rolled-back": "rolled back",
  degraded: "degraded",
  superseded: "superseded",
  cancelled: "cancelled",
  expired: "expired",
};

/** `nuc: fetching`, `nuc: failed: the disk is full`, `nuc is offline: …` */
export function formatDeploymentLine(deployment: DeploymentDto): string {
  const { agent, state, contact, reason } = deployment;
  const standing = standingOf(state, contact);
  if (standing === "parked" && state === "queued") {
    return `${agent} is offline: it takes this deployment when it returns${describeExpiry(deployment)}`;
  }
  if (standing === "parked") {
    return `${agent} is offline: ${describeUnheard(deployment)}${describeExpiry(deployment)}${describeStop(deployment)}`;
  }
  if (state === "queued") return `${agent}: queued ${deployment.storePath}${describePutOff(deployment)}`;
  if (deployment.stalledSince !== null)
    return `${agent}: ${STATE_WORDS[state]}: ${describeStall(deployment.stalledSince)}`;
  const why = reason === null || standing === "running" ? "" : `: ${cleanLine(reason)}`;
  return `${agent}: ${STATE_WORDS[state]}${describeStop(deployment)}${why}${describeLate(deployment)}${describeRetry(deployment)}`;
}

/** `it was offered this deployment at …, and was heard of last at …: it may have begun, and its word is waited for` */
function describeUnheard({ offeredAt, lastSeenAt }: Pick<DeploymentDto, "offeredAt" | "lastSeenAt">): string {
  const offered = offeredAt === null ? "" : ` at ${formatMinute(offeredAt)}`;
  const heard = lastSeenAt === null ? "" : `, and was heard of last at ${formatMinute(lastSeenAt)}`;
  return `it was offered this deployment${offered}${heard}: it may have begun, and its word is waited for`;
}

/** `, asked to stop`; "" for one that is not. */
export function describeStop({ stopRequested }: Pick<DeploymentDto, "stopRequested">): string {
  return stopRequested === null ? "" : ", asked to stop";
}

/** ` The device said later: succeeded: It is live.`; "" for one of which nothing was. */
function describeLate({ lateOutcome }: Pick<DeploymentDto, "lateOutcome">): string {
  if (lateOutcome === null) return "";
  return ` The device said later: ${STATE_WORDS[lateOutcome.outcome]}: ${cleanLine(lateOutcome.reason)}`;
}

/** `, try 2, not before 2026-11-22 13:05 UTC`; "" for one that goes at once. */
export function describePutOff(deployment: Pick<DeploymentDto, "attempt" | "notBefore">): string {
  const { attempt, notBefore } = deployment;
  return notBefore === null ? "" : `, try ${attempt}, not before ${formatMinute(notBefore)}`;
}

/** `no progress since 2026-11-22 13:05 UTC` */
export function describeStall(since: string): string {
  return `no progress since ${formatMinute(since)}`;
}

/** `, until 2026-12-22 13:05 UTC`; "" for one that waits for ever. */
export function describeExpiry({ expiresAt }: Pick<DeploymentDto, "expiresAt">): string {
  return expiresAt === null ? "" : `, until ${formatMinute(expiresAt)}`;
}

/** ` Tried again at 2026-11-22 13:05 UTC (rollout …).`; "" for one that is not. */
function describeRetry({ retriedBy }: DeploymentDto): string {
  if (retriedBy === null) return "";
  const { notBefore, rollout, state } = retriedBy;
  const when = state === "queued" && notBefore !== null ? ` at ${formatMinute(notBefore)}` : "";
  return ` Tried again${when} (rollout ${rollout}).`;
}

function formatMinute(time: string): string {
  return `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** What a cancel has come to. */
export function describeCancelled(deployment: DeploymentDto): string {
  const { agent, state, contact, stopRequested } = deployment;
  if (isTerminal(state)) return `${agent}: ${STATE_WORDS[state]}`;
  const isUntouched = state === "offered" || state === "fetching";
  const asked = isUntouched ? "is asked to stop" : "has begun to activate it: it is asked to go back";
  const known = state === "offered" ? `: ${describeUnheard(deployment)}${describeExpiry(deployment)}` : "";
  const when = contact === "online" ? "" : `, when it is in contact again${known}`;
  return stopRequested === null ? `${agent}: ${STATE_WORDS[state]}` : `${agent} ${asked}${when}`;
}

/** `nuc | starting units` */
export function formatLogLine(agent: string, line: Pick<LogLine, "text">): string {
  return `${agent} | ${cleanLine(line.text)}`;
}

/** `nuc: fetching 12 of 40 paths, 3.1 MB of 20.0 MB` */
export function formatProgress(progress: Extract<FollowEvent, { event: "progress" }>["data"]): string {
  const { agent, paths, pathsTotal, bytes, bytesTotal } = progress;
  return `${agent}: fetching ${paths} of ${pathsTotal} paths, ${formatBytes(bytes)} of ${formatBytes(bytesTotal)}`;
}

export type SummaryRow = {
  readonly agent: string;
  readonly outcome: string;
  readonly duration: string;
  readonly reason: string;
  readonly url: string;
};

export function summarize(deployment: DeploymentDto): SummaryRow {
  const isParked = standingOf(deployment.state, deployment.contact) === "parked";
  return {
    agent: deployment.agent,
    outcome: STATE_WORDS[deployment.state],
    duration: formatElapsed(deployment.startedAt ?? deployment.createdAt, deployment.finishedAt),
    reason: isParked ? describeParked(deployment) : describeEnd(deployment),
    url: deployment.url,
  };
}

function describeParked(deployment: DeploymentDto): string {
  const what = deployment.state === "queued" ? "takes it when it returns" : describeUnheard(deployment);
  return `offline: ${what}${describeExpiry(deployment)}${describeStop(deployment)}`;
}

function describeEnd(deployment: DeploymentDto): string {
  return `${cleanLine(deployment.reason ?? "")}${describeLate(deployment)}${describeRetry(deployment)}`.trim();
}

export type ChangeRow = { readonly agent: string; readonly would: string; readonly units: string };

const WOULD = {
  stop: "stop",
  skip: "leave, though changed",
  reload: "reload",
  restart: "restart",
  start: "start",
} as const satisfies Record<UnitAction, string>;

/** What dry activations said, a row for each agent and action; an agent of whom nothing would change has one, too. */
export function listUnitChanges(deployments: readonly DeploymentDto[]): readonly ChangeRow[] {
  return deployments.flatMap(({ agent, unitChanges }) => {
    if (unitChanges === null) return [];
    const { restartsSystemd, swapOff, omitted } = unitChanges;
    const rows = UNIT_ACTIONS.map((action): [string, readonly string[]] => [WOULD[action], unitChanges[action]]);
    const all: readonly [string, readonly string[]][] = [
      ...rows,
      ["restart", restartsSystemd ? ["systemd itself"] : []],
      ["turn off swap on", swapOff],
      ["do more, see the log", omitted > 0 ? [`${omitted} not listed here`] : []],
    ];
    const told = all.filter(([, names]) => names.length > 0);
    if (told.length === 0) return [{ agent, would: "change no unit", units: "" }];
    return told.map(([would, names]) => ({ agent, would, units: cleanLine(names.join(", ")) }));
  });
}

/** `-` when it has not finished. */
function formatElapsed(from: string, to: string | null): string {
  return to === null ? "-" : formatDuration(Math.max(0, Date.parse(to) - Date.parse(from)));
}
