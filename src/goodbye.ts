/** What a coordinator that stops says to its agents when it closes their websockets (close code 1001), both ways. Pure. */

/**
 * The reason. Agents that know the sentence come back at a random moment within that time; older ones take it for text.
 */
export function formatGoodbye(why: string, withinSeconds: number): string {
  return `${why}; come back within ${withinSeconds} s`;
}

/** @returns milliseconds, at most a minute; null for what is no {@link formatGoodbye} */
export function parseGoodbye(reason: string): number | null {
  const [, seconds] = /; come back within (\d{1,2}) s$/.exec(reason) ?? [];
  return seconds === undefined ? null : Math.min(60, Number(seconds)) * 1_000;
}
