/** What a push says while it goes, and while the coordinator is away. */
import { expect, test } from "bun:test";
import { createPushProgress } from "../../../src/commands/terminal/push-progress.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

test("speed by what is sent, time left by what is read; a loss is said once, with its reason, and its end", async () => {
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
  const { storePath, narHash } = createTinyPath("hello");
  const unsigned = { references: [], deriver: null, signatures: [], contentAddress: null };
  const info = { storePath, narHash, narSizeBytes: 4_000_000, ...unsigned };
  const progress = createPushProgress(line, { plan: { closure: [info], missing: [info] }, cache: "default", clock });
  await clock.advance(2_000);
  progress.onEvent({ kind: "read", bytes: 2_000_000 });
  progress.onEvent({ kind: "sent", bytes: 1_000_000 });
  await progress.clear();
  expect(live).toBe("0 of 1 NARs, 2.0 MB of 4.0 MB, 1.0 MB sent, 500.0 kB/s, 2 s left");
  for (let nar = 0; nar < 3; nar += 1) progress.onEvent({ kind: "waiting", why: "cannot reach it" });
  for (let part = 0; part < 3; part += 1) progress.onEvent({ kind: "sent", bytes: 1 });
  await progress.clear();
  expect(lines).toEqual(["cannot reach it: trying again for 5 min", "the coordinator is there again"]);
});
