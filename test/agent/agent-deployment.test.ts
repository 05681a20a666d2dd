/** A deployment in the whole agent, from its offer to its outcome: fetched, checked, cancelled, refused. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { isCancelRequested, readRecord } from "../../src/agent/activation/record.ts";
import { signKeyStatement } from "../../src/key-statement.ts";
import { formatPublicKey, publicKeyOf } from "../../src/nix/signing-key.ts";
import { narInfoOf, planOf } from "../support/faulty-cache.ts";
import { waitFor } from "../support/wait-for.ts";
import {
  type AgentBench,
  app,
  KEY,
  leaf,
  OTHER_KEY,
  offer,
  openAgentBench,
  outcomeOf,
  SUCCEEDED,
  script,
  TRUSTED,
  takeDeployment,
} from "./agent-bench.ts";
import { offerOf } from "./offers.ts";
import { takeHello, welcomeFrame } from "./scripted-coordinator.ts";

let bench: AgentBench;

beforeEach(async () => {
  bench = await openAgentBench();
});
afterEach(() => bench[Symbol.asyncDispose]());

describe("a deployment", () => {
  test("is fetched, rooted, activated and reported, and its folder disappears", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    peer.send(offer());
    const entries = await takeDeployment(peer);
    expect(entries.map((entry) => (entry.type === "phase" ? entry.phase : entry.type))).toEqual([
      "fetching",
      "log",
      "activating",
      "log",
      "outcome",
    ]);
    expect(outcomeOf(entries)).toMatchObject({
      outcome: "succeeded",
      reason: "It is live.",
      previousPath: null,
      exitCode: 0,
      fetchedBytes: leaf.file.length + app.file.length,
      phaseMs: { fetching: expect.any(Number), activating: expect.any(Number) },
    });
    expect(bench.activations).toMatchObject([
      { storePath: app.storePath, mode: "switch", previous: { profile: null } },
    ]);
    expect(bench.roots).toEqual([app.storePath]);
    await waitFor("the folder to go", async () => (await bench.deploymentFolders()).length === 0);
    await agent.stop();
    expect(bench.daemon.connections.open).toBe(0);
  });

  test("tells the coordinator how long it may take to prove itself, which is this device's own business", async () => {
    const agent = bench.startAgent({ confirmWindowMs: 300_000 });
    const peer = await bench.admit();
    peer.send(offer());
    const told = (await takeDeployment(peer)).filter((entry) => entry.type === "phase");
    expect(told.map(({ phase, confirmWindowMs }) => [phase, confirmWindowMs])).toEqual([
      ["fetching", undefined],
      ["activating", 300_000],
    ]);
    await agent.stop();
  });

  test("brings its rollback script along", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    peer.send(offer({ rollbackScript: script.storePath }));
    await takeDeployment(peer);
    expect(bench.daemon.valid.has(script.storePath)).toBe(true);
    expect(bench.activations).toMatchObject([{ rollbackScript: script.storePath }]);
    await agent.stop();
  });

  test("signed by a key that was not pinned is refused, whatever the coordinator says later", async () => {
    const agent = bench.startAgent();
    (await bench.admit()).close();
    bench.cache.plan = planOf([leaf, app].map((path) => narInfoOf(path, OTHER_KEY)));
    const peer = await bench.admit([formatPublicKey(publicKeyOf(OTHER_KEY))]);
    peer.send(offer());
    const outcome = outcomeOf(await takeDeployment(peer));
    expect(outcome.outcome).toBe("failed");
    expect(outcome.reason).toMatch(/none that is valid under the keys this device trusts \(cache-1\)/);
    expect(bench.logged.join("\n")).toContain("a cache key that this device has not pinned (other-1)");
    expect([bench.activations, bench.daemon.valid.size]).toEqual([[], 0]);
    await agent.stop();
  });

  test("signed by a key for which the pinned one vouches is taken, now and after a restart", async () => {
    const first = bench.startAgent();
    (await bench.admit()).close();
    bench.cache.plan = planOf([leaf, app].map((path) => narInfoOf(path, OTHER_KEY)));
    const newKey = publicKeyOf(OTHER_KEY);
    const statement = signKeyStatement(KEY, { cache: "default", newKey, sequence: 1, atMs: 0 });
    const told = { publicKeys: [formatPublicKey(newKey)], keyStatements: [statement] };
    const peer = await bench.nextPeer();
    await takeHello(peer);
    peer.send(welcomeFrame(told));
    await waitFor("the news", () => bench.logged.join("\n").includes("as the old one"));
    await first.stop();
    const enrolment = await readFile(bench.directory.join("state", "enrolment.json"), "utf8");
    expect(enrolment).toContain(formatPublicKey(newKey));
    expect(enrolment).not.toContain(TRUSTED);
    const second = bench.startAgent();
    // Without the statement, too: the pin is on the disk.
    const again = await bench.admit([formatPublicKey(newKey)]);
    again.send(offer());
    expect(outcomeOf(await takeDeployment(again)).outcome).toBe("succeeded");
    await second.stop();
  });

  test("is checked against the operator's keys when there are some, and nothing is pinned then", async () => {
    const agent = bench.startAgent({ trustedPublicKeys: [TRUSTED] });
    const peer = await bench.admit([formatPublicKey(publicKeyOf(OTHER_KEY))]);
    peer.send(offer());
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    await agent.stop();
    expect(await readFile(bench.directory.join("state", "enrolment.json"), "utf8")).toContain('"pinnedPublicKeys": []');
  });

  test("cancelled while it fetches touches nothing", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    bench.cache.decide = () => ({ status: 503 });
    peer.send(offer());
    await waitFor("a request", () => bench.cache.requests.length > 0);
    peer.send({ kind: "cancel", deploymentId: offer().deploymentId });
    const outcome = outcomeOf(await takeDeployment(peer));
    expect(outcome).toMatchObject({ outcome: "cancelled", reason: "Cancelled before anything was touched." });
    expect(bench.activations).toEqual([]);
    await agent.stop();
  });

  test("that arrives while another is worked on comes next; the same again is no news", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    const begun = Promise.withResolvers<void>();
    bench.activate = async () => {
      await begun.promise;
      return { ...SUCCEEDED, reason: "Done." };
    };
    peer.send(offer());
    await waitFor("the activation", () => bench.activations.length === 1);
    peer.send(offer());
    peer.send(offerOf("b", { storePath: leaf.storePath }));
    begun.resolve();
    await takeDeployment(peer);
    await takeDeployment(peer);
    expect(bench.activations.map((record) => record.storePath)).toEqual([app.storePath, leaf.storePath]);
    await agent.stop();
  });

  test("that may not be activated fails before anything is recorded", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    peer.send(offer({ mode: "boot" }));
    expect(outcomeOf(await takeDeployment(peer))).toMatchObject({
      outcome: "failed",
      reason: `Cannot activate ${app.storePath}: it is a plain package, which has no mode boot.`,
    });
    expect([bench.activations, await readRecord(bench.directory.join("state"))]).toEqual([[], null]);
    await agent.stop();
  });

  test("of a version that failed here by its own fault is not even fetched, until a person wants it", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    bench.activate = async () => ({ outcome: "rolled-back", reason: "It broke.", exitCode: 1, fault: "version" });
    peer.send(offer());
    expect(outcomeOf(await takeDeployment(peer))).toMatchObject({ outcome: "rolled-back", fault: "version" });
    const requests = bench.cache.requests.length;
    peer.send(offerOf("b", { storePath: app.storePath }));
    const refused = await takeDeployment(peer);
    expect(refused.map(({ type }) => type)).toEqual(["outcome"]);
    expect(outcomeOf(refused)).toMatchObject({
      outcome: "failed",
      reason: expect.stringContaining("nixdeploy retry nuc"),
    });
    expect([bench.activations.length, bench.cache.requests.length]).toEqual([1, requests]);

    bench.activate = async () => SUCCEEDED;
    peer.send(offerOf("c", { storePath: app.storePath, retry: true }));
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    peer.send(offerOf("d", { storePath: app.storePath }));
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("succeeded");
    await agent.stop();
  });

  test("cancelled while it is activated asks the supervisor to go back", async () => {
    const agent = bench.startAgent();
    const peer = await bench.admit();
    bench.activate = async (record) => {
      await waitFor(
        "the request",
        async () => await isCancelRequested(bench.directory.join("state"), record.deploymentId),
      );
      return { outcome: "rolled-back", reason: "A cancel asked to go back.", exitCode: null };
    };
    peer.send(offer());
    await waitFor("the activation", () => bench.activations.length === 1);
    peer.send({ kind: "cancel", deploymentId: offer().deploymentId });
    expect(outcomeOf(await takeDeployment(peer)).outcome).toBe("rolled-back");
    await waitFor("the record to go", async () =>
      (await bench.stateFiles()).every((name) => !name.startsWith("activation.j")),
    );
    expect(await bench.stateFiles()).not.toContain("activation-cancel");
    await agent.stop();
  });
});
