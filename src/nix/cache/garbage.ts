/**
 * Keeps the memory of a stream at what is in use. Every stage of a transfer makes new buffers, and Bun's collector,
 * which weighs them like small objects, lets 60 to 100 MB of dead ones stand before it looks.
 *
 * For clients, whose heap is small: a collection takes some 5 ms of it. A coordinator with many uploads leaves it to Bun.
 */

const COLLECT_EVERY_BYTES = 16 * 1024 * 1024;

/** Told of the bytes that passed; collects now and then. One for all streams of a transfer. */
export function createGarbageLimit(): (passedBytes: number) => void {
  let sinceBytes = 0;
  return (passedBytes) => {
    sinceBytes += passedBytes;
    if (sinceBytes < COLLECT_EVERY_BYTES) return;
    sinceBytes = 0;
    Bun.gc(true);
  };
}
