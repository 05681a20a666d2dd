/**
 * Waiting by condition: tests have no fixed sleeps.
 */

export type WaitForOptions<T> = {
  /** Default 10,000. */
  readonly timeoutMs?: number;
  /** Pause between two looks. Default 20. */
  readonly intervalMs?: number;
  /** Is this value what is waited for? Default: anything but undefined, null and false. */
  readonly until?: (value: T) => boolean;
  /** More about the state when time is up, for example the output of a process. */
  readonly describe?: () => string;
};

/**
 * Looks again and again until `look` gives something (see `until`), and returns it. A look that throws counts as "not yet".
 * @throws Error "waited N ms for WHAT: last seen …" with the last value or the last thing thrown
 */
export async function waitFor<T>(
  what: string,
  look: () => T | Promise<T>,
  options: WaitForOptions<T> = {},
): Promise<Exclude<T, undefined | null | false>> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  const deadlineMs = performance.now() + timeoutMs;
  let lastSeen = "nothing";
  let cause: unknown;
  for (;;) {
    try {
      const value = await look();
      lastSeen = describeValue(value);
      cause = undefined;
      if (isPresent(value) && (options.until?.(value) ?? true)) return value;
    } catch (error) {
      lastSeen = `error: ${error instanceof Error ? error.message : String(error)}`;
      cause = error;
    }
    if (performance.now() >= deadlineMs) {
      const more = options.describe === undefined ? "" : `\n${options.describe()}`;
      throw new Error(`waited ${timeoutMs} ms for ${what}: last seen ${lastSeen}${more}`, { cause });
    }
    await Bun.sleep(options.intervalMs ?? 20);
  }
}

function isPresent<T>(value: T): value is Exclude<T, undefined | null | false> {
  return value !== undefined && value !== null && value !== false;
}

const DESCRIPTION_LENGTH_MAX = 2_000;

function describeValue(value: unknown): string {
  const text = typeof value === "string" ? value : Bun.inspect(value);
  return text.length > DESCRIPTION_LENGTH_MAX ? `${text.slice(0, DESCRIPTION_LENGTH_MAX)}…` : text;
}
