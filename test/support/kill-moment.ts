/** Waiting for the moment to kill a process: looks as often as this process can, because what is waited for lasts a millisecond. */

/** @throws when it does not come in time */
export async function watchFor(what: string, isThere: () => boolean, timeoutMs = 60_000): Promise<void> {
  const untilMs = performance.now() + timeoutMs;
  while (!isThere()) {
    if (performance.now() > untilMs) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}
