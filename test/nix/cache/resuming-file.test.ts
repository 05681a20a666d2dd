/** One file over connections that are slow or die in silence, with a clock that stands still until it is moved. */
import { expect, test } from "bun:test";
import type { NarRequest } from "../../../src/nix/cache/download/nar-source.ts";
import { readResumingFile } from "../../../src/nix/cache/download/resuming-file.ts";
import { secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { narInfoOf } from "../../support/faulty-cache.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const path = createTinyPath("slow");
const info = narInfoOf(path, secretKeyFromSeed("team-1", new Uint8Array(32).fill(1)));
const sizeBytes = path.file.length;

/** A cache whose connections send one byte at each of so many ticks, and then nothing for ever. */
function startDownload(clock: ManualClock, options: { readonly intervalMs: number; readonly bytesMax: number }) {
  const requests: NarRequest[] = [];
  async function* trickle({ startByte, signal }: NarRequest): AsyncGenerator<Uint8Array> {
    for (let sent = 0; sent < options.bytesMax && startByte + sent < sizeBytes; sent += 1) {
      await clock.sleep(options.intervalMs, signal);
      yield path.file.subarray(startByte + sent, startByte + sent + 1);
    }
    if (startByte + options.bytesMax < sizeBytes) await new Promise(() => {});
  }
  const openNar = async (request: NarRequest) => {
    requests.push(request);
    return { kind: "body", startByte: request.startByte, sizeBytes, etag: null, body: trickle(request) } as const;
  };
  const stop = new AbortController();
  const random = { ...systemRandom, fraction: () => 0 };
  const deps = { info, cache: { openNar }, clock, random, signal: stop.signal, onBytes: () => {} };
  return { requests, stop, done: Array.fromAsync(readResumingFile(deps)) };
}

test("a byte every 59 s arrives over one connection, however long it takes", async () => {
  const clock = createManualClock();
  const download = startDownload(clock, { intervalMs: 59_000, bytesMax: sizeBytes });
  await clock.advance(59_000 * sizeBytes);
  expect(Buffer.concat(await download.done).equals(path.file)).toBeTrue();
  expect(download.requests).toHaveLength(1);
});

test("a connection that is silent for 60 s is given up, and the file goes on where it stood", async () => {
  const clock = createManualClock();
  const download = startDownload(clock, { intervalMs: 1_000, bytesMax: 10 });
  await clock.advance(10_000 + 59_999);
  expect(download.requests).toHaveLength(1);
  await clock.advance(1);
  expect(download.requests.map(({ startByte }) => startByte)).toEqual([0, 10]);
  expect(download.requests[0]?.signal.aborted).toBeTrue();
  download.stop.abort(new Error("enough"));
  await expect(download.done).rejects.toThrow("enough");
});

test("an answer that does not come counts as silence, too", async () => {
  const clock = createManualClock();
  let requests = 0;
  const openNar = () => {
    requests += 1;
    return new Promise<never>(() => {});
  };
  const stop = new AbortController();
  const random = { ...systemRandom, fraction: () => 0 };
  const deps = { info, cache: { openNar }, clock, random, signal: stop.signal, onBytes: () => {} };
  const done = Array.fromAsync(readResumingFile(deps)).catch((error: unknown) => error);
  await clock.advance(59_999);
  expect(requests).toBe(1);
  await clock.advance(1);
  expect(requests).toBe(2);
  // Nothing ever comes: given up after a quarter of an hour, no later than one more silence.
  await clock.advance(16 * 60_000);
  expect(await done).toMatchObject({ kind: "unreachable", message: expect.stringContaining("for 15 minutes") });
});
