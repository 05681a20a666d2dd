/** Who may begin an activation. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { beginDeploymentHere, readOutcome } from "../../src/agent/journal/deployment-folder.ts";
import { endUnbegun, takeFreeTurn, takeTurn, tryTurn } from "../../src/agent/turn.ts";
import { systemClock } from "../../src/runtime.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { deploymentIdOf, offerOf } from "./offers.ts";

const OTHER = deploymentIdOf("b");
let directory: TemporaryDirectory;
beforeEach(async () => {
  directory = await createTemporaryDirectory("turn");
});
afterEach(() => directory[Symbol.asyncDispose]());

const options = (signal = new AbortController().signal) => ({
  ...{ stateDirectory: directory.path, clock: systemClock, signal },
});

/** A journal of somebody else's activation. */
async function beginOther(): Promise<void> {
  const offer = { ...offerOf("b"), startedHere: { startedAtMs: 1, startedBy: null } };
  await using opened = await beginDeploymentHere({ stateDirectory: directory.path, offer, clock: systemClock });
  await opened.journal.phase({ phase: "activating", previousPath: null });
}

test("one at a time", async () => {
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = takeTurn(options(), async () => {
    order.push("first");
    await gate.promise;
    order.push("first ends");
  });
  const second = takeTurn(options(), async () => void order.push("second"));
  expect(await tryTurn(directory.path, async () => "in between")).toBeNull();
  gate.resolve();
  await Promise.all([first, second]);
  expect(order).toEqual(["first", "first ends", "second"]);
  expect(await tryTurn(directory.path, async () => "now")).toBe("now");
});

test("whoever waits for a turn ends with its signal", async () => {
  const over = new AbortController();
  await takeTurn(options(), async () => {
    const waiting = takeTurn(options(over.signal), async () => {});
    over.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });
});

test("a free turn comes when the other one is over", async () => {
  await beginOther();
  const told: string[] = [];
  const turn = takeFreeTurn(
    {
      ...options(),
      inTheWay: async () => ((await readOutcome(directory.path, OTHER)) === null ? OTHER : null),
      onWait: async (other) => {
        told.push(other);
        await endUnbegun({ ...options(), deploymentId: OTHER });
      },
    },
    async () => "done",
  );
  expect(await turn).toBe("done");
  expect(told).toEqual([OTHER]);
});

test("what was never on record ends failed, untouched", async () => {
  await beginOther();
  await endUnbegun({ ...options(), deploymentId: OTHER });
  expect(await readOutcome(directory.path, OTHER)).toMatchObject({
    outcome: "failed",
    reason: expect.stringContaining("before anything was touched"),
  });
});
