/** How fast bytes come and when they will all be there, by what was seen in the last seconds. Pure. */

export type Sample = { readonly atMs: number; readonly bytes: number };

export type TransferSpeed = {
  readonly bytesPerSecond: number;
  /** Null while nothing comes. */
  readonly secondsLeft: number | null;
};

const WINDOW_MS = 10_000;
/** Less says nothing: bytes come in bursts. */
const SPAN_MIN_MS = 1_000;

/** Samples with one more, without those that are too old; fewer bytes than before mean that it was begun again. */
export function addSample(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  const last = samples.at(-1);
  if (last !== undefined && sample.bytes < last.bytes) return [sample];
  const recent = samples.filter(({ atMs }) => sample.atMs - atMs <= WINDOW_MS);
  // Of a stream that is slower than that, what was seen last stays, to tell by.
  return [...(recent.length === 0 ? samples.slice(-1) : recent), sample];
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
