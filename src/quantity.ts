/** Amounts as people read them. Pure. */

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** `0 B`, `950 B`, `1.5 kB`, `20.0 MB`: decimal units, as disks and networks are sold. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.95 && unit < UNITS.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min` */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const DAY_MS = 24 * 3_600_000;

/** Roughly, in one unit: `45 s`, `12 min`, `3 h`, `2 days` */
export function formatSpan(ms: number): string {
  if (ms < 100_000) return `${Math.round(ms / 1_000)} s`;
  if (ms < 100 * 60_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 2 * DAY_MS) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / DAY_MS)} days`;
}

/** `1 path`, `2 paths` */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
