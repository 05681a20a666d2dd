/** Deployments that somebody else began in the agent's state directory: found, seen through, announced, reported. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { beginDeploymentHere, discardDeployment } from "../../../src/agent/journal/deployment-folder.ts";
import { type DeploymentStore, openDeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { createReporter } from "../../../src/agent/link/reporter.ts";
import { watchLocalDeployments } from "../../../src/agent/local/local-watch.ts";
import { endUnbegun, takeTurn } from "../../../src/agent/turn.ts";
import { silentLogger } from "../../../src/log.ts";
import type { AgentFrameInput } from "../../../src/protocol.ts";
import { type Clock, systemClock } from "../../../src/runtime.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { waitFor } from "../../support/wait-for.ts";
import { deploymentIdOf, offerOf } from "../offers.ts";

const HERE = deploymentIdOf("b");
/** Looks often. */
const clock: Clock = {
  ...systemClock,
  sleep: (durationMs, signal) => systemClock.sleep(Math.min(durationMs, 20), signal),
};

let directory: TemporaryDirectory;
let store: DeploymentStore;
let stop: AbortController;
let sent: AgentFrameInput[];

beforeEach(async () => {
  directory = await createTemporaryDirectory("local-watch");
  store = await openDeploymentStore({ stateDirectory: directory.path, clock, followed: null });
  stop = new AbortController();
  sent = [];
});
afterEach(async () => {
  stop.abort(new Error("over"));
  await store[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

async function startHere(): Promise<void> {
  await takeTurn({ stateDirectory: directory.path, clock, signal: stop.signal }, async () => {
    const offer = { ...offerOf("b"), startedHere: { startedAtMs: 1_000, startedBy: "alice" } };
    await using opened = await beginDeploymentHere({ stateDirectory: directory.path, offer, clock });
    await opened.journal.phase({ phase: "activating", previousPath: null });
  });
}

/** Watches until the end of the test. */
function watch() {
  const seen = { tended: 0, ended: 0 };
  const watching = watchLocalDeployments({
    ...{ stateDirectory: directory.path, store, clock, logger: silentLogger, signal: stop.signal },
    activations: {
      tend: async (journal) => {
        seen.tended += 1;
        await journal.refresh();
      },
      pending: async () => null,
    },
    onEnd: () => {
      seen.ended += 1;
    },
  });
  watching.catch(() => {
    // It ends with the test.
  });
  return seen;
}

function report() {
  const reporter = createReporter({ store, send: (frame) => void sent.push(frame), clock });
  reporter.run(stop.signal).catch(() => {
    // It ends with the test.
  });
  return reporter;
}
const kinds = () => sent.map(({ kind }) => kind);

test("of several that appear at once, the oldest is announced first, and the latest last", async () => {
  const letters = ["a", "b", "c", "d", "e", "f"];
  // Neither the order of their names nor that of the folder.
  for (const [index, letter] of letters.entries()) {
    const startedHere = { startedAtMs: 1_000 - index, startedBy: null };
    const offer = { ...offerOf(letter), startedHere };
    await using _ = await beginDeploymentHere({ stateDirectory: directory.path, offer, clock });
  }
  report();
  watch();
  await waitFor("all to be announced", () => sent.length === letters.length);
  const announced = sent.map((frame) => (frame.kind === "announce" ? frame.deploymentId : frame.kind));
  expect(announced).toEqual(letters.toReversed().map(deploymentIdOf));
});

test("one that appears is opened and looked after until it has ended", async () => {
  const seen = watch();
  await startHere();
  await waitFor("the journal", () => store.find(HERE) !== null);
  await waitFor("several looks", () => seen.tended > 2);
  await endUnbegun({ stateDirectory: directory.path, deploymentId: HERE, clock });
  await waitFor("the end", () => seen.ended === 1);
  expect(store.find(HERE)?.outcome?.outcome).toBe("failed");
});

test("one that somebody is about to begin is left alone", async () => {
  watch();
  await takeTurn({ stateDirectory: directory.path, clock, signal: stop.signal }, async () => {
    const offer = { ...offerOf("b"), startedHere: { startedAtMs: 1_000, startedBy: null } };
    await using _opened = await beginDeploymentHere({ stateDirectory: directory.path, offer, clock });
    await clock.sleep(60, stop.signal);
    expect(store.find(HERE)).toBeNull();
    await discardDeployment(directory.path, HERE);
  });
  await clock.sleep(60, stop.signal);
  expect(store.find(HERE)).toBeNull();
});

test("it is announced first, and reported once the coordinator knows it", async () => {
  await startHere();
  await store.adopt();
  const reporter = report();
  await waitFor("the announcement", () => sent.length > 0);
  expect(sent).toEqual([
    {
      ...{ kind: "announce", deploymentId: HERE, storePath: offerOf("b").storePath, mode: "switch" },
      ...{ startedAtMs: 1_000, startedBy: "alice" },
    },
  ]);
  reporter.known(HERE);
  await waitFor("the report", () => sent.length > 1);
  expect(kinds()).toEqual(["announce", "report"]);
  await store.acknowledge(HERE, 1);
});

test("a coordinator that does not take the announcement gets nothing of it, and everything else", async () => {
  await startHere();
  await store.adopt();
  const reporter = report();
  await waitFor("the announcement", () => sent.length > 0);
  const offered = await store.begin(offerOf("a"));
  await offered.phase({ phase: "fetching", previousPath: null });
  await waitFor("the report", () => sent.length > 1);
  expect(sent[1]).toMatchObject({ kind: "report", deploymentId: deploymentIdOf("a") });
  // What is known of others says nothing about it; and silence about it is no silence.
  reporter.known(deploymentIdOf("a"));
  await store.acknowledge(deploymentIdOf("a"), 1);
  await waitFor("nothing to be awaited", () => reporter.waitingSinceMs === null);
  expect(kinds()).toEqual(["announce", "report"]);
  expect(store.find(HERE)).not.toBeNull();
});
