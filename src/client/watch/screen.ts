/**
 * What a terminal shows of a running rollout: one line an agent while they fit, else those at which something happens, and
 * counts of all. Pure: lines out, none wider than the terminal; who paints them is `commands/rollout-view/`.
 *
 *     nuc  fetching    ███████░░░  72 %  72.0 MB of 100.0 MB, 10.0 MB/s, 3 s left
 *     tv   activating  12 s  starting units
 *     pi   offline     takes it when it returns
 *     3 agents: 1 fetching, 1 activating, 1 offline; 10.0 MB/s
 */
import { type DeploymentState, isTerminal } from "../../deployment.ts";
import { cleanPlain } from "../../printable.ts";
import { formatBytes, formatCount, formatDuration } from "../../quantity.ts";
import { describeSpeed, measureSpeed } from "../../transfer-speed.ts";
import { standingOf } from "../follow/follow-state.ts";
import { describePutOff, describeStall, STATE_WORDS } from "../follow/follow-text.ts";
import type { Watched } from "./rollout-watch.ts";

type Paint = (text: string) => string;
export type ScreenStyle = Readonly<Record<"bold" | "dim" | "red" | "green" | "yellow", Paint>>;

export type ScreenOptions = {
  readonly nowMs: number;
  readonly columns: number;
  /** At most so many lines; at least 1. */
  readonly rowsMax: number;
  readonly style: ScreenStyle;
};

const NAME_WIDTH_MAX = 24;
const STATE_WIDTH = 12;
const BAR_WIDTH = 10;

export function renderScreen(watched: readonly Watched[], options: ScreenOptions): readonly string[] {
  if (watched.length === 0) return [];
  const counts = cutToWidth(formatCounts(watched, options.nowMs), options.columns);
  const room = options.rowsMax - (watched.length === 1 ? 0 : 1);
  const shown = watched.length <= room ? watched : chooseShown(watched, Math.max(0, room));
  const nameWidth = Math.min(NAME_WIDTH_MAX, Math.max(0, ...shown.map(({ deployment }) => deployment.agent.length)));
  const rows = shown.map((each) => renderRow(each, { ...options, nameWidth }));
  return watched.length === 1 && rows.length === 1 ? rows : [...rows, options.style.bold(counts)];
}

/** Where something happens, the latest last; then what ended badly. In the order of the rollout. */
function chooseShown(watched: readonly Watched[], room: number): readonly Watched[] {
  const isActive = ({ deployment }: Watched) => isUnderWay(deployment.state);
  const active = watched.filter(isActive).slice(0, room);
  const bad = watched
    .filter(({ deployment }) => standingOf(deployment.state, deployment.contact) === "bad")
    .slice(0, room - active.length);
  const chosen = new Set([...active, ...bad]);
  return watched.filter((each) => chosen.has(each));
}

function isUnderWay(state: DeploymentState): boolean {
  return state !== "queued" && !isTerminal(state);
}

type RowOptions = ScreenOptions & { readonly nameWidth: number };

function renderRow(watched: Watched, { columns, nameWidth, nowMs, style }: RowOptions): string {
  const { agent, state, contact } = watched.deployment;
  const standing = standingOf(state, contact);
  const word = standing === "parked" ? "offline" : state === "offered" ? "offered" : STATE_WORDS[state];
  const isStalled = watched.deployment.stalledSince !== null;
  const paint = {
    good: style.green,
    bad: style.red,
    parked: style.yellow,
    running: isStalled ? style.yellow : (text: string) => text,
  }[standing];
  const name = cutToWidth(agent, nameWidth).padEnd(nameWidth);
  const head = `${name}  ${word.padEnd(STATE_WIDTH)}`;
  if (head.length > columns) return cutToWidth(head, columns);
  const detail = cutToWidth(describeDetail(watched, nowMs), Math.max(0, columns - head.length - 1));
  return `${name}  ${paint(word.padEnd(STATE_WIDTH))} ${standing === "running" ? detail : style.dim(detail)}`.trimEnd();
}

function describeDetail(watched: Watched, nowMs: number): string {
  const { deployment, progress, sinceMs, lastLine } = watched;
  const { state, contact, reason, stalledSince } = deployment;
  const standing = standingOf(state, contact);
  if (standing === "parked")
    return state === "queued" ? "takes it when it returns" : "may have begun; its word is waited for";
  if (isTerminal(state)) return cleanPlain(reason ?? "");
  if (stalledSince !== null) return describeStall(stalledSince);
  if (state === "queued") return describePutOff(deployment).replace(/^, /, "");
  if (state === "fetching" && progress !== null) return describeTransfer(watched, nowMs);
  const elapsed = formatSeconds(Math.floor(Math.max(0, nowMs - sinceMs) / 1_000));
  return `${elapsed}${lastLine === null ? "" : `  ${cleanPlain(lastLine)}`}`;
}

function describeTransfer({ progress, samples }: Watched, nowMs: number): string {
  if (progress === null) return "";
  const { bytes, bytesTotal, paths, pathsTotal } = progress;
  const part = bytesTotal === 0 ? 1 : Math.min(1, bytes / bytesTotal);
  const full = Math.floor(part * BAR_WIDTH);
  const bar = "█".repeat(full) + "░".repeat(BAR_WIDTH - full);
  const percent = `${Math.floor(part * 100)}`.padStart(3);
  const speed = measureSpeed(samples, { nowMs, bytesTotal });
  const amounts = [`${formatBytes(bytes)} of ${formatBytes(bytesTotal)}`, ...describeSpeed(speed)].join(", ");
  return `${bar} ${percent} %  ${amounts} (${paths} of ${formatCount(pathsTotal, "path")})`;
}

function formatSeconds(seconds: number): string {
  return seconds === 0 ? "0 s" : formatDuration(seconds * 1_000);
}

/** `40 agents: 2 fetching, 30 succeeded, 8 offline; 12.0 MB/s` */
export function formatCounts(watched: readonly Watched[], nowMs: number): string {
  const counts = new Map<string, number>();
  let bytesPerSecond = 0;
  for (const { deployment, progress, samples } of watched) {
    const { state, contact } = deployment;
    const word = standingOf(state, contact) === "parked" ? "offline" : state;
    counts.set(word, (counts.get(word) ?? 0) + 1);
    if (state !== "fetching" || progress === null) continue;
    bytesPerSecond += measureSpeed(samples, { nowMs, bytesTotal: progress.bytesTotal })?.bytesPerSecond ?? 0;
  }
  const words = [...Object.keys(STATE_WORDS), "offline"].filter((word) => counts.has(word));
  const told = words.map((word) => `${counts.get(word)} ${word}`).join(", ");
  const rate = bytesPerSecond === 0 ? "" : `; ${formatBytes(bytesPerSecond)}/s`;
  return `${formatCount(watched.length, "agent")}: ${told}${rate}`;
}

/** No wider than `width` columns; what is cut ends with "…". */
export function cutToWidth(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = "";
  let used = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    const wide = Bun.stringWidth(segment);
    if (used + wide > width - 1) break;
    cut += segment;
    used += wide;
  }
  return width < 1 ? "" : `${cut}…`;
}
