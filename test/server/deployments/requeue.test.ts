/** Deployments that came to nothing for want of contact alone: tried again later, a few times, and never over another's head. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type DeploymentDto, deploymentListSchema } from "../../../src/api/deployments.ts";
import { rolloutSchema } from "../../../src/api/rollouts.ts";
import { FAULTS, type Fault, OUTCOMES } from "../../../src/deployment.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { planRequeue, REQUEUE_DELAYS_MS, waitMsOf } from "../../../src/server/deployments/requeue.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { numberEntries, outcomeEntry, phaseEntry, type ScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const [MINUTE_MS = 0] = REQUEUE_DELAYS_MS;

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE, TWO);
  return server;
}

/** Newest first. */
async function listAll(server: TestCoordinator): Promise<readonly DeploymentDto[]> {
  return deploymentListSchema.parse(await (await server.fetch("deployments?limit=1000")).json()).deployments;
}

async function latest(server: TestCoordinator): Promise<DeploymentDto> {
  const [deployment] = await listAll(server);
  if (deployment === undefined) throw new Error("there is no deployment");
  return deployment;
}

const rolledBack = (fault: Fault | undefined) => ({
  ...outcomeEntry("rolled-back"),
  ...(fault === undefined ? {} : { fault }),
});
const end = (agent: ScriptedAgent, id: DeploymentId, fault: Fault | undefined = "contact") =>
  agent.report(id, numberEntries([phaseEntry("activating"), rolledBack(fault)]));
const offersOf = (agent: ScriptedAgent) => agent.framesOf("offer").map(({ deploymentId }) => deploymentId);

describe("rolled back for want of contact alone", () => {
  test("is tried again a minute later, as a rollout of its own", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const json = {
      agents: { nuc: ONE.storePath },
      mode: "test",
      policy: { confirmWindowMs: 5_000 },
      healthChecks: [{ name: "ssh", kind: "tcp", port: 22 }],
      origin: { commit: "abc" },
    };
    const first = rolloutSchema.parse(await (await expectOk(await server.fetch("rollouts", { json }))).json());
    const [deployment] = first.deployments;
    const id = deployment?.id;
    if (id === undefined) throw new Error("there is no deployment");
    await end(agent, id);

    const again = await latest(server);
    const atMs = server.clock.nowMs() + MINUTE_MS;
    expect(again).toMatchObject({
      ...{ state: "queued", storePath: ONE.storePath, mode: "test", retryOf: id, attempt: 2 },
      notBefore: new Date(atMs).toISOString(),
    });
    expect(again.rollout).not.toBe(first.id);
    expect((await listAll(server))[1]).toMatchObject({
      ...{ id, state: "rolled-back", fault: "contact", attempt: 1, retryOf: null, notBefore: null },
      retriedBy: { id: again.id, rollout: again.rollout, state: "queued", notBefore: again.notBefore },
    });
    const rollout = rolloutSchema.parse(await (await server.fetch(`rollouts/${again.rollout}`)).json());
    expect(rollout.description).toBe(`tried again (1 of 3) because the coordinator was out of reach: deployment ${id}`);
    const origins = await server.coordinator.services.database.selectFrom("rollouts").select("origin").execute();
    expect(origins.map(({ origin }) => JSON.parse(origin))).toEqual([{ commit: "abc" }, { commit: "abc" }]);

    expect(offersOf(agent)).toEqual([id]);
    await server.clock.advance(MINUTE_MS - 1);
    expect(offersOf(agent)).toEqual([id]);
    await server.clock.advance(1);
    await waitFor("the offer", () => offersOf(agent).length === 2);
    const offer = agent.framesOf("offer")[1];
    expect(offer).toMatchObject({ deploymentId: again.id, mode: "test", policy: { confirmWindowMs: 5_000 } });
    const before = agent.framesOf("offer")[0];
    if (before === undefined) throw new Error("there was no offer");
    expect(offer).toEqual({ ...before, deploymentId: again.id });
    expect([before.healthChecks?.length, offer?.retry]).toEqual([1, undefined]);
  });

  test.each([true, false])("takes the quarantine along as it was: retry %p", async (retry) => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const json = { agents: { nuc: ONE.storePath }, mode: "switch", retry };
    const first = rolloutSchema.parse(await (await expectOk(await server.fetch("rollouts", { json }))).json());
    const [deployment] = first.deployments;
    if (deployment === undefined) throw new Error("there is no deployment");
    await end(agent, deployment.id);
    await server.clock.advance(MINUTE_MS);
    const again = await waitFor("the next try", () => agent.framesOf("offer")[1]);
    expect(again.retry ?? false).toBe(retry);
  });

  test("three times in a row, later each time, and then no more", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    await server.activate(ONE, "nuc");
    for (const [index, delayMs] of [...REQUEUE_DELAYS_MS, null].entries()) {
      const { id, attempt } = await latest(server);
      expect(attempt).toBe(index + 1);
      await end(agent, id);
      if (delayMs === null) continue;
      await server.clock.advance(delayMs - 1);
      expect(offersOf(agent)).toHaveLength(index + 1);
      await server.clock.advance(1);
      await waitFor("the next offer", () => offersOf(agent).length === index + 2);
    }
    expect((await listAll(server)).map(({ state, attempt }) => `${attempt} ${state}`)).toEqual([
      "4 rolled-back",
      "3 rolled-back",
      "2 rolled-back",
      "1 rolled-back",
    ]);
  });

  const others: readonly (readonly [what: string, entry: ReturnType<typeof rolledBack>])[] = [
    ["by the version's fault", rolledBack("version")],
    ["by an agent that does not say whose fault it was", rolledBack(undefined)],
    ["and nobody knows how to go back", { ...rolledBack("contact"), outcome: "degraded" }],
  ];
  for (const [what, entry] of others) {
    test(`is not what was undone ${what}`, async () => {
      await using server = await createServer();
      const agent = await server.connectAgent("nuc");
      await server.activate(ONE, "nuc");
      const { id } = await latest(server);
      await agent.report(id, numberEntries([entry]));
      expect((await listAll(server)).map((deployment) => deployment.id)).toEqual([id]);
    });
  }

  test("has its turn taken by a newer one: before its outcome comes, and while it waits", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    await server.activate(ONE, "nuc");
    const first = await latest(server);
    await agent.report(first.id, numberEntries([phaseEntry("activating")]));
    await server.activate(TWO, "nuc");
    const second = await latest(server);
    await agent.report(first.id, numberEntries([rolledBack("contact")], 2));
    expect((await latest(server)).id).toBe(second.id);

    await end(agent, second.id);
    const third = await latest(server);
    expect(third).toMatchObject({ retryOf: second.id, state: "queued" });
    await server.activate(ONE, "nuc");
    expect((await listAll(server)).map(({ state }) => state)).toEqual([
      "offered",
      "superseded",
      "rolled-back",
      "rolled-back",
    ]);
    await server.clock.advance(2 * MINUTE_MS);
    expect(offersOf(agent)).not.toContain(third.id);
  });

  test("is not tried again when it was asked to stop, or its next try was cancelled", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const cancel = async () =>
      await expectOk(await server.fetch("cancellations", { json: { of: [(await latest(server)).id] } }));
    await server.activate(ONE, "nuc");
    const first = await latest(server);
    await agent.report(first.id, numberEntries([phaseEntry("activating")]));
    await cancel();
    await agent.report(first.id, numberEntries([rolledBack("contact")], 2));
    expect(await latest(server)).toMatchObject({ id: first.id, state: "rolled-back" });

    await server.activate(TWO, "nuc");
    const second = await latest(server);
    await end(agent, second.id);
    // By its first, too: what tries it again stands for it.
    await expectOk(await server.fetch("cancellations", { json: { of: [second.id] } }));
    expect(await latest(server)).toMatchObject({ retryOf: second.id, state: "cancelled" });
    await server.clock.advance(2 * MINUTE_MS);
    expect(offersOf(agent)).toHaveLength(2);
  });

  test("keeps its time across an agent that comes and goes, and a coordinator that was killed", async () => {
    await using server = await createServer("file");
    const agent = await server.connectAgent("nuc");
    await server.activate(ONE, "nuc");
    await end(agent, (await latest(server)).id);
    const { id } = await latest(server);
    await agent.disconnect();
    await server.clock.advance(MINUTE_MS / 2);
    await server.restart();
    const back = await server.connectAgent(agent.identity);
    expect(offersOf(back)).toEqual([]);
    await server.clock.advance(MINUTE_MS / 2);
    await waitFor("the offer", () => offersOf(back).includes(id));
    expect(offersOf(agent)).not.toContain(id);
  });

  test("waits for an agent that is away when its time comes", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    await server.activate(ONE, "nuc");
    await end(agent, (await latest(server)).id);
    const { id } = await latest(server);
    await agent.disconnect();
    await server.clock.advance(10 * MINUTE_MS);
    const back = await server.connectAgent(agent.identity);
    await waitFor("the offer", () => offersOf(back).includes(id));
  });
});

test("whoever ends without it leaves no timer", async () => {
  await using server = await createServer();
  const before = server.clock.sleepers;
  const agent = await server.connectAgent("nuc");
  await server.activate(ONE, "nuc");
  await end(agent, (await latest(server)).id);
  await agent.disconnect();
  // But for those that look after what may expire and which events are old; whoever looks after what runs sees that
  // nothing does, and the agent counts as offline.
  await server.clock.advance(120_000);
  await waitFor("no sleeper", () => server.clock.sleepers === before + 2);
});

describe("the plan", () => {
  test("a chain has three more tries at most, whatever ends how, and none that was stopped or is not the newest", () => {
    const events = fc.record({
      state: fc.constantFrom(...OUTCOMES),
      fault: fc.constantFrom(null, ...FAULTS),
      stopRequested: fc.constantFrom(null, "cancelled", "superseded"),
      hasNewer: fc.boolean(),
      onDevice: fc.constantFrom(0, 1),
    });
    // Most chains should be long ones.
    const lost = fc.constant({
      state: "rolled-back",
      fault: "contact",
      stopRequested: null,
      hasNewer: false,
      onDevice: 0,
    } as const);
    // And each thing that keeps a deployment from being tried again must be seen alone.
    const nearly = fc
      .constantFrom(
        { state: "failed" as const },
        { fault: "version" as const },
        { stopRequested: "cancelled" as const },
        { hasNewer: true },
        { onDevice: 1 },
      )
      .chain((changes) => lost.map((all) => ({ ...all, ...changes })));
    const ends = fc.oneof({ weight: 9, arbitrary: lost }, nearly, events);
    fc.assert(
      fc.property(fc.array(ends, { maxLength: 20 }), (chain) => {
        let attempt = 1;
        let nowMs = 0;
        for (const { state, fault, stopRequested, hasNewer, onDevice } of chain) {
          const before = { stop_requested: stopRequested, attempt, started_on_device: onDevice };
          const plan = planRequeue({ before, state, fault, hasNewer, nowMs });
          const isWanted = state === "rolled-back" && fault === "contact" && onDevice === 0;
          const mayGo = isWanted && stopRequested === null && !hasNewer && attempt <= 3;
          expect(plan !== null).toBe(mayGo);
          if (plan === null) return;
          expect(plan.attempt).toBe(attempt + 1);
          expect(plan.notBeforeMs).toBeGreaterThan(nowMs);
          ({ attempt } = plan);
          nowMs = plan.notBeforeMs;
        }
        expect(attempt).toBeLessThanOrEqual(4);
      }),
    );
  });

  test("a clock that was set back makes nobody wait for long", () => {
    const nowMs = 1_000_000_000;
    const table = [
      [null, 0],
      [nowMs, 0],
      [nowMs - 1, 0],
      [nowMs + 1, 1],
      [nowMs + 15 * MINUTE_MS, 15 * MINUTE_MS],
      [nowMs + 15 * MINUTE_MS + 1, 0],
    ] as const;
    for (const [notBeforeMs, waitMs] of table) expect(waitMsOf({ not_before_ms: notBeforeMs }, nowMs)).toBe(waitMs);
  });
});

test("whatever happens to an agent, no try is offered behind a newer deployment, and never a fifth", async () => {
  const steps = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.constant("lose contact" as const) },
      { weight: 4, arbitrary: fc.constant("wait" as const) },
      fc.constantFrom("activate" as const, "fail" as const, "reconnect" as const, "cancel" as const),
    ),
    { maxLength: 25 },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (run) => {
      await using server = await createServer();
      let agent = await server.connectAgent("nuc");
      await server.activate(ONE, "nuc");
      const open = async () => (await listAll(server)).find(({ state }) => state === "offered");
      for (const step of run) {
        const offered = await open();
        if (step === "wait") await server.clock.advance(16 * MINUTE_MS);
        if (step === "activate") await server.activate(TWO, "nuc");
        if (step === "lose contact" && offered !== undefined) await end(agent, offered.id);
        if (step === "fail" && offered !== undefined) await end(agent, offered.id, "version");
        if (step === "cancel") await server.fetch("cancellations", { json: { of: ["nuc"] } });
        if (step === "reconnect") {
          await agent.disconnect();
          agent = await server.connectAgent(agent.identity);
        }
        await expectChains(server);
      }
    }),
    { numRuns: 20 },
  );
}, 60_000);

async function expectChains(server: TestCoordinator): Promise<void> {
  const all = (await listAll(server)).toReversed();
  for (const [index, { id, attempt, retryOf, storePath }] of all.entries()) {
    expect(attempt).toBeLessThanOrEqual(4);
    if (retryOf === null) continue;
    // Nothing was made between a deployment and what tries it again.
    expect(all[index - 1]).toMatchObject({ id: retryOf, attempt: attempt - 1, storePath, retriedBy: { id } });
  }
  const live = all.findIndex(({ state }) => state === "offered" || state === "queued");
  expect(live === -1 || live === all.length - 1 || all[live]?.stopRequested !== null).toBe(true);
}
