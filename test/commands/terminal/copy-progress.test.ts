/** What a copy says of all its hosts together. */
import { expect, test } from "bun:test";
import { createCopyProgress } from "../../../src/commands/terminal/copy-progress.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

test("one line for all hosts, with the speed of the last seconds", async () => {
  const clock = createManualClock();
  const lines: string[] = [];
  let live = "";
  const line = {
    update: async (text: () => string) => {
      live = text();
    },
    say: async (text: string) => void lines.push(text),
    clear: async () => {},
  };
  const progress = createCopyProgress(line, { clock, verb: "copy" });
  const { storePath, narHash } = createTinyPath("hello");
  const unsigned = { references: [], deriver: null, signatures: [], contentAddress: null };
  const info = { storePath, narHash, narSizeBytes: 2_000_000, ...unsigned };
  progress.onEvent("nuc", { kind: "planned", missing: [info], pathsTotal: 3 });
  progress.onEvent("tv", { kind: "planned", missing: [], pathsTotal: 3 });
  for (let second = 0; second < 2; second += 1) {
    await clock.advance(1_000);
    progress.onEvent("nuc", { kind: "bytes", count: 500_000 });
  }
  await progress.clear();
  expect(lines).toEqual([
    "nuc: 1 path to copy (2.0 MB), 2 there already",
    "tv: nothing to copy, all 3 paths are there",
  ]);
  expect(live).toBe("2 hosts, 0 of 1 path, 1.0 MB of 2.0 MB, 500.0 kB/s, 2 s left");
});
