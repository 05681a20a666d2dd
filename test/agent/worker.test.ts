/** The worker when a deployment cannot go on: it tries again, at its pace, also when that deployment was cancelled. */
import { expect, test } from "bun:test";
import { openDeploymentStore } from "../../src/agent/journal/deployment-store.ts";
import { createWorker } from "../../src/agent/worker.ts";
import { silentLogger } from "../../src/log.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { createVirtualClock } from "../support/virtual-clock.ts";
import { deploymentIdOf, offerOf } from "./offers.ts";

const TEN_MINUTES_MS = 10 * 60_000;
const TRIES_MAX = 25;

test("a cancelled deployment whose end the disk refuses is tried again twice a minute, not without a pause", async () => {
  await using directory = await createTemporaryDirectory("worker");
  const clock = createVirtualClock();
  await using store = await openDeploymentStore({ stateDirectory: directory.path, clock, followed: null });
  const stop = new AbortController();
  let tries = 0;
  const worker = createWorker({
    store,
    clock,
    logger: silentLogger,
    signal: stop.signal,
    onChange: () => {},
    async deploy() {
      tries += 1;
      // What would go on for ever ends the test instead.
      if (tries > TRIES_MAX) stop.abort(new Error("too many tries"));
      throw new Error("the disk takes nothing");
    },
  });
  await store.begin(offerOf("a"));
  worker.offer(offerOf("a"));
  await clock.sleep(1_000, stop.signal);
  worker.handle({ kind: "cancelled", deploymentId: deploymentIdOf("a") });
  await clock.sleep(TEN_MINUTES_MS, stop.signal);
  expect(tries).toBeGreaterThan(15);
  expect(tries).toBeLessThanOrEqual(TRIES_MAX);
  stop.abort(new Error("the test is over"));
  await worker.settled();
});
