/**
 * Durations as people write them: `45s`, `30m`, `1h30m`, `90d`.
 *
 *   duration = [ days "d" ] [ hours "h" ] [ minutes "m" ] [ seconds "s" ]     at least one, in this order, whole numbers
 */
const DURATION = /^(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?$/;
const SECONDS_PER_UNIT = [86_400, 3_600, 60, 1];
const DURATION_SECONDS_MAX = 3_660 * 86_400;

/** As {@link parseDuration} reads it; what is less than a second is left out. @param ms at least a second */
export function formatDuration(ms: number): string {
  let rest = Math.floor(ms / 1_000);
  const parts = ["d", "h", "m", "s"].map((unit, index) => {
    const seconds = SECONDS_PER_UNIT[index] ?? 1;
    const count = Math.floor(rest / seconds);
    rest -= count * seconds;
    return count === 0 ? "" : `${count}${unit}`;
  });
  return parts.join("");
}

/**
 * Milliseconds, more than zero and at most ten years.
 * @throws Error whose message says what a duration looks like
 */
export function parseDuration(text: string): number {
  const parts = DURATION.exec(text)?.slice(1);
  if (text === "" || parts === undefined) {
    throw new Error("a duration is written like 45s, 30m, 1h30m or 90d");
  }
  const seconds = parts.reduce((sum, part, index) => sum + Number(part ?? 0) * (SECONDS_PER_UNIT[index] ?? 0), 0);
  if (seconds === 0 || seconds > DURATION_SECONDS_MAX) {
    throw new Error("a duration must be longer than zero and at most ten years");
  }
  return seconds * 1000;
}
