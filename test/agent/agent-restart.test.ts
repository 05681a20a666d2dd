/** Restarts of an agent, and of its coordinator, at any point of a deployment. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { cp } from "node:fs/promises";
import type { AgentFrame } from "../../src/protocol.ts";
import { narInfoOf } from "../support/faulty-cache.ts";
import { waitFor } from "../support/wait-for.ts";
import {
  type AgentBench,
  app,
  KEY,
  leaf,
  offer,
  openAgentBench,
  outcomeOf,
  SUCCEEDED,
  TRUSTED,
  takeDeployment,
} from "./agent-bench.ts";
import { takeHello, welcomeFrame } from "./scripted-coordinator.ts";

let bench: AgentBench;

beforeEach(async () => {
  bench = await openAgentBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

describe("a restart", () => {
  test("in the middle of a fetch goes on with it, without a new offer", async () => {
    const first = bench.startAgent();
    const peer = await bench.admit();
    bench.cache.decide = ({ path }) => (path.includes(narInfoOf(app, KEY).url) ? { status: 503 } : null);
    peer.send(offer());
    await waitFor("the leaf", () => bench.daemon.valid.has(leaf.storePath));
    await first.stop();
    bench.cache.decide = () => null;
    const second = bench.startAgent();
    const again = await bench.nextPeer();
    expect((await takeHello(again)).state.inFlight).toBe(offer().deploymentId);
    again.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    const entries = await takeDeployment(again);
    expect(outcomeOf(entries)).toMatchObject({ outcome: "succeeded", fetchedBytes: app.file.length });
    expect(entries.filter((entry) => entry.type === "phase" && entry.phase === "fetching").length).toBe(2);
    await second.stop();
  });

  test("does not wait for an activation in progress; its outcome is delivered by the next start", async () => {
    const first = bench.startAgent();
    const peer = await bench.admit();
    const end = Promise.withResolvers<void>();
    bench.activate = async () => {
      await end.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    await waitFor("the activation", () => bench.activations.length === 1);
    await first.stop();
    expect(peer.isClosed).toBe(true);

    const second = bench.startAgent();
    const again = await bench.nextPeer();
    expect((await takeHello(again)).state.inFlight).toBe(offer().deploymentId);
    again.send(welcomeFrame({ publicKeys: [TRUSTED] }));
    again.send(offer());
    end.resolve();
    expect(outcomeOf(await takeDeployment(again)).reason).toBe("Done.");
    expect(bench.activations.length).toBe(1);
    await second.stop();
  });

  test("after a kill in the middle of an activation activates again, with what was there before", async () => {
    const before = leaf.storePath;
    bench.profile = before;
    const first = bench.startAgent();
    const peer = await bench.admit();
    // The disk as a kill leaves it: the journal ends with the phase.
    const stuck = Promise.withResolvers<never>();
    bench.activate = () => stuck.promise;
    peer.send(offer());
    await waitFor("the activation", () => bench.activations.length === 1);
    await cp(bench.directory.join("state"), bench.directory.join("copy"), { recursive: true });
    bench.profile = app.storePath;
    bench.activate = async () => SUCCEEDED;
    const second = bench.startAgent({
      stateDirectory: bench.directory.join("copy"),
      profilePath: bench.directory.join("profiles", "copy"),
    });
    const again = await bench.admit();
    const entries = await takeDeployment(again);
    expect(outcomeOf(entries)).toMatchObject({ outcome: "succeeded", previousPath: before });
    expect(bench.activations[1]).toMatchObject({ previous: { profile: before } });
    await second.stop();
    stuck.reject(new Error("over"));
    await first.stop();
  });

  test("of the coordinator: everything unacknowledged is sent again, in order, once it is back", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    const end = Promise.withResolvers<void>();
    bench.activate = async (_, journal) => {
      for (let index = 0; index < 5_000; index += 1) await journal.log("out", `line ${index}`);
      await end.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    // One report is acknowledged, what follows is lost with the connection.
    const first = await peer.expect("report");
    peer.send({ kind: "acknowledge", deploymentId: first.deploymentId, through: first.entries.length });
    await peer.expect("report");
    peer.close();
    end.resolve();
    const again = await bench.admit();
    const report = await again.expect("report");
    expect(report.entries[0]?.n).toBe(first.entries.length + 1);
    const texts: string[] = [];
    let through = first.entries.length;
    const take = (frame: Extract<AgentFrame, { kind: "report" }>) => {
      for (const entry of frame.entries) {
        expect(entry.n).toBe(through + 1);
        through = entry.n;
        texts.push(entry.type === "log" ? entry.text : entry.type);
      }
      again.send({ kind: "acknowledge", deploymentId: frame.deploymentId, through });
    };
    take(report);
    while (texts.at(-1) !== "outcome") take(await again.expect("report"));
    expect(texts.slice(-2)).toEqual(["line 4999", "outcome"]);
    await agent.stop();
  });
});
