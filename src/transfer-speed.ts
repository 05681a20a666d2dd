/**
 * How fast bytes come and when they will all be there, by what was seen in the last seconds; and how people read that. For
 * pushes, copies and rollouts alike. Pure.
 */
import { formatBytes } from "./quantity.ts";

/** How many bytes there were by then. */
export type Sample = { readonly atMs: number; readonly bytes: number };

export type TransferSpeed = {
  readonly bytesPerSecond: number;
  /** Null while nothing comes. */
  readonly secondsLeft: number | null;
};

/** Longer: a stall shows late. Shorter: the figure jumps. */
const WINDOW_MS = 10_000;
/** Less says nothing: bytes come in bursts. */
const SPAN_MIN_MS = 1_000;
/** Closer together they tell no more, and some are told of thousands of times a second. */
const SPACING_MS = 500;

/** Samples with one more, without those that are too old; fewer bytes than before mean that it was begun again. */
export function addSample(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  const last = samples.at(-1);
  if (last !== undefined && sample.bytes < last.bytes) return [sample];
  const before = samples.at(-2);
  const isClose = before !== undefined && last !== undefined && last.atMs - before.atMs < SPACING_MS;
  const spaced = isClose ? samples.slice(0, -1) : samples;
  const recent = spaced.filter(({ atMs }) => sample.atMs - atMs <= WINDOW_MS);
  // Of a stream that is slower than that, what was seen last stays, to tell by.
  return [...(recent.length === 0 ? spaced.slice(-1) : recent), sample];
}

/** @returns null while there is too little to tell by */
export function measureSpeed(
  samples: readonly Sample[],
  now: { readonly nowMs: number; readonly bytesTotal: number },
): TransferSpeed | null {
  const [first] = samples;
  const last = samples.at(-1);
  if (first === undefined || last === undefined) return null;
  const spanMs = now.nowMs - first.atMs;
  if (spanMs < SPAN_MIN_MS || samples.length < 2) return null;
  const bytesPerSecond = Math.round(((last.bytes - first.bytes) * 1_000) / spanMs);
  const left = Math.max(0, now.bytesTotal - last.bytes);
  return { bytesPerSecond, secondsLeft: bytesPerSecond === 0 ? null : Math.ceil(left / bytesPerSecond) };
}

/** `10.0 MB/s`, and `3 s left` where that can be told; nothing for null. */
export function describeSpeed(speed: TransferSpeed | null): readonly string[] {
  if (speed === null) return [];
  const { bytesPerSecond, secondsLeft } = speed;
  return [`${formatBytes(bytesPerSecond)}/s`, ...(secondsLeft === null ? [] : [`${formatSeconds(secondsLeft)} left`])];
}

/** `8 s`, `3 min`, `2 h 5 min`: no more exact than it is worth. */
function formatSeconds(seconds: number): string {
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
