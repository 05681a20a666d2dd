/** POST /retries and /cancellations: what of what is named is tried again or stopped, and what is refused, all at once. */
import { describe, expect, test } from "bun:test";
import { type DeploymentDto, deploymentListSchema } from "../../../src/api/deployments.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { type RolloutDto, rolloutSchema } from "../../../src/api/rollouts.ts";
import type { Outcome } from "../../../src/deployment.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { numberEntries, outcomeEntry, phaseEntry, type ScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");

async function createServer(): Promise<TestCoordinator> {
  const server = await createTestCoordinator();
  await server.publishUnseen(ONE, TWO);
  return server;
}

type Post = { readonly of: readonly string[]; readonly workspace?: string; readonly origin?: object };

async function retry(server: TestCoordinator, ...of: readonly string[]): Promise<RolloutDto> {
  return rolloutSchema.parse(await (await expectOk(await server.fetch("retries", { json: { of } }))).json());
}

async function cancel(server: TestCoordinator, ...of: readonly string[]): Promise<readonly DeploymentDto[]> {
  const answer = await expectOk(await server.fetch("cancellations", { json: { of } }));
  return deploymentListSchema.parse(await answer.json()).deployments;
}

async function faultsOf(server: TestCoordinator, path: "retries" | "cancellations", json: Post) {
  const answer = await server.fetch(path, { json });
  expect(answer.status).toBe(422);
  const { title, errors = [] } = problemSchema.parse(await answer.json());
  expect(title).toContain(path === "retries" ? "nothing was started" : "nothing was cancelled");
  return errors;
}

function only(rollout: Pick<RolloutDto, "deployments">): DeploymentDto {
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment;
}

const summarize = ({ deployments }: Pick<RolloutDto, "deployments">) =>
  deployments.map(({ agent, storePath, state }) => `${agent} ${storePath} ${state}`);

/** Rolls a path out to agents, which end it each in its own way. */
async function rollOut(
  server: TestCoordinator,
  path: typeof ONE,
  ends: readonly (readonly [agent: ScriptedAgent, outcome: Outcome])[],
): Promise<RolloutDto> {
  const rollout = await server.activate(path, ...ends.map(([agent]) => agent.identity.name));
  for (const [agent, outcome] of ends) {
    const id = rollout.deployments.find(({ agent: name }) => name === agent.identity.name)?.id;
    if (id !== undefined) await agent.report(id, numberEntries([phaseEntry("activating"), outcomeEntry(outcome)]));
  }
  return rollout;
}

test("a rollout that asks for it lifts what its devices hold back; others do not", async () => {
  await using server = await createTestCoordinator();
  await server.push(ONE);
  const agent = await server.connectAgent("nuc");
  for (const retry of [undefined, false, true]) {
    const json = { agents: { nuc: ONE.storePath }, mode: "switch", retry };
    await expectOk(await server.fetch("rollouts", { json }));
    const offer = agent.framesOf("offer").at(-1);
    expect(offer?.retry ?? false).toBe(retry ?? false);
    await agent.report(offer?.deploymentId as never, numberEntries([outcomeEntry("failed")]));
  }
});

describe("a retry", () => {
  test("of a rollout is one of what did not succeed, asked for as before, and lifts the quarantine", async () => {
    await using server = await createServer();
    const [a, b, c] = [await server.connectAgent("a"), await server.connectAgent("b"), await server.connectAgent("c")];
    const json = {
      agents: { a: ONE.storePath, b: ONE.storePath, c: TWO.storePath },
      mode: "test",
      policy: { onUnitFailure: "keep" },
      rollbackScript: { "x86_64-linux": TWO.storePath },
      origin: { commit: "abc" },
    };
    const first = rolloutSchema.parse(await (await server.fetch("rollouts", { json })).json());
    for (const [agent, outcome] of [
      [a, "rolled-back"],
      [b, "succeeded"],
      [c, "failed"],
    ] as const) {
      const id = agent.framesOf("offer")[0]?.deploymentId ?? only(first).id;
      await agent.report(id, numberEntries([outcomeEntry(outcome)]));
    }
    const again = await retry(server, first.id);
    expect(summarize(again)).toEqual([`a ${ONE.storePath} offered`, `c ${TWO.storePath} offered`]);
    expect(again.description).toBe(`tried again: ${first.id}`);
    expect(again.deployments.map(({ retryOf, attempt }) => [retryOf, attempt])).toEqual([
      [first.deployments[0]?.id ?? null, 1],
      [first.deployments[2]?.id ?? null, 1],
    ]);
    expect(a.framesOf("offer")[1]).toMatchObject({
      ...{ storePath: ONE.storePath, mode: "test", rollbackScript: TWO.storePath, retry: true },
      policy: { onUnitFailure: "keep" },
    });
    expect(b.framesOf("offer")).toHaveLength(1);
    const origins = await server.coordinator.services.database.selectFrom("rollouts").select("origin").execute();
    expect(origins.map(({ origin }) => JSON.parse(origin))).toEqual([{ commit: "abc" }, { commit: "abc" }]);
  });

  for (const outcome of ["failed", "rolled-back", "degraded", "cancelled"] as const) {
    test(`of an agent is one of its latest deployment, which ended ${outcome}`, async () => {
      await using server = await createServer();
      const agent = await server.connectAgent("nuc");
      await rollOut(server, ONE, [[agent, "succeeded"]]);
      await rollOut(server, TWO, [[agent, outcome]]);
      expect(summarize(await retry(server, "nuc"))).toEqual([`nuc ${TWO.storePath} offered`]);
    });
  }

  test("of a deployment is one of it, whatever came after it", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const old = await rollOut(server, ONE, [[agent, "failed"]]);
    const newer = await rollOut(server, TWO, [[agent, "succeeded"]]);
    expect(await faultsOf(server, "retries", { of: [old.id] })).toEqual([
      `nothing to try again: nuc: deployment ${only(old).id} has a newer one behind it (${only(newer).id}, succeeded); ` +
        "name it by its id to try it all the same",
    ]);
    expect(summarize(await retry(server, only(old).id))).toEqual([`nuc ${ONE.storePath} offered`]);
  });

  test("of what was tried again already is one of the latest try", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const first = await rollOut(server, ONE, [[agent, "failed"]]);
    const second = await retry(server, first.id);
    expect(await faultsOf(server, "retries", { of: [first.id] })).toEqual([
      `nothing to try again: nuc: deployment ${only(second).id} is offered`,
    ]);
    await agent.report(only(second).id, numberEntries([outcomeEntry("failed")]));
    const third = await retry(server, only(first).id);
    expect(only(third).retryOf).toBe(only(second).id);
    await agent.report(only(third).id, numberEntries([outcomeEntry("succeeded")]));
    for (const word of [first.id, only(second).id, "nuc"]) {
      expect(await faultsOf(server, "retries", { of: [word] })).toEqual([
        `nothing to try again: nuc: deployment ${only(third).id} succeeded`,
      ]);
    }
  });

  test("of one that the coordinator would try later is tried now instead", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const first = await server.activate(ONE, "nuc");
    await agent.report(only(first).id, numberEntries([{ ...outcomeEntry("rolled-back"), fault: "contact" }]));
    const now = await retry(server, "nuc");
    expect(only(now)).toMatchObject({ state: "offered", attempt: 1, notBefore: null });
    const { deployments } = deploymentListSchema.parse(await (await server.fetch("deployments")).json());
    expect(deployments.map(({ state }) => state)).toEqual(["offered", "superseded", "rolled-back"]);
  });

  test("of several is one rollout, each agent once", async () => {
    await using server = await createServer();
    const [a, b] = [await server.connectAgent("a"), await server.connectAgent("b")];
    const first = await rollOut(server, ONE, [[a, "failed"]]);
    const second = await rollOut(server, TWO, [[b, "degraded"]]);
    expect(summarize(await retry(server, first.id, "b", only(second).id))).toEqual([
      `a ${ONE.storePath} offered`,
      `b ${TWO.storePath} offered`,
    ]);
  });

  test("is refused with every fault at once, and nothing is started", async () => {
    await using server = await createServer();
    const [a, b] = [await server.connectAgent("a"), await server.connectAgent("b")];
    await (await server.connectAgent("idle")).disconnect();
    const old = await rollOut(server, ONE, [[a, "failed"]]);
    const newer = await rollOut(server, TWO, [[a, "failed"]]);
    const good = await rollOut(server, ONE, [[b, "succeeded"]]);
    const of = ["nobody", "../x", "idle", good.id, only(old).id, only(newer).id];
    expect(await faultsOf(server, "retries", { of })).toEqual([
      '"nobody": no deployment, rollout or agent is called so',
      '"../x": no deployment, rollout or agent is called so',
      "idle: nothing was deployed",
      `nothing to try again: b: deployment ${only(good).id} succeeded`,
      `a: two deployments are named (${only(old).id}, ${only(newer).id}), and it can take only one`,
    ]);
    const { deployments } = deploymentListSchema.parse(await (await server.fetch("deployments")).json());
    expect(deployments).toHaveLength(3);
  });

  test("of a path that is not in the cache any more is refused", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    await rollOut(server, ONE, [[agent, "failed"]]);
    await server.coordinator.services.database.deleteFrom("paths").where("store_path", "=", ONE.storePath).execute();
    expect(await faultsOf(server, "retries", { of: ["nuc"] })).toEqual([
      `${ONE.storePath} is not in the cache default: push it first`,
    ]);
  });
});

describe("a cancel", () => {
  test("ends at once what waits, asks what runs, and reaches the agent", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const running = only(await server.activate(ONE, "nuc"));
    await agent.report(running.id, numberEntries([phaseEntry("fetching")]));
    const waiting = only(await server.activate(TWO, "nuc"));
    expect((await cancel(server, "nuc")).map(({ id, state, stopRequested }) => [id, state, stopRequested])).toEqual([
      [running.id, "fetching", "cancelled"],
      [waiting.id, "cancelled", null],
    ]);
    expect(agent.framesOf("cancel").map(({ deploymentId }) => deploymentId)).toContain(running.id);
    // Asked for once more, it is asked once more.
    expect((await cancel(server, running.id)).map(({ id }) => id)).toEqual([running.id]);
    await agent.report(running.id, numberEntries([outcomeEntry("cancelled")], 2));
    expect(await faultsOf(server, "cancellations", { of: ["nuc"] })).toEqual(["nuc: nothing is queued or running"]);
  });

  test("of a rollout leaves alone what has ended, and is refused when all has", async () => {
    await using server = await createServer();
    const [a, b] = [await server.connectAgent("a"), await server.connectAgent("b")];
    const rollout = await server.activate(ONE, "a", "b");
    const [first] = a.framesOf("offer");
    if (first === undefined) throw new Error("there is no offer");
    await a.report(first.deploymentId, numberEntries([outcomeEntry("succeeded")]));
    expect((await cancel(server, rollout.id)).map(({ agent }) => String(agent))).toEqual(["b"]);
    const [asked] = b.framesOf("cancel");
    if (asked === undefined) throw new Error("it was not asked");
    await b.report(asked.deploymentId, numberEntries([outcomeEntry("cancelled")]));
    expect(await faultsOf(server, "cancellations", { of: [rollout.id, "nobody"] })).toEqual([
      '"nobody": no deployment, rollout or agent is called so',
      `a: deployment ${first.deploymentId} has ended: succeeded`,
      `b: deployment ${asked.deploymentId} has ended: cancelled`,
    ]);
  });
});

describe("who may", () => {
  test("activate tokens of that workspace; others see nothing there", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const rollout = await rollOut(server, ONE, [[agent, "failed"]]);
    for (const path of ["retries", "cancellations"]) {
      for (const kind of ["read", "push", "agent"] as const) {
        const { token } = await server.createToken(kind);
        const answer = await server.fetch(path, { json: { of: [rollout.id] }, token });
        expect(answer.status).toBe(404);
        if (kind !== "agent") expect(problemSchema.parse(await answer.json()).hint).toContain("admin or activate");
      }
      expect((await server.fetch(path, { json: { of: [rollout.id] }, token: null })).status).toBe(401);
    }
    const { token } = await server.createToken("activate");
    expect((await server.fetch("retries", { json: { of: [rollout.id] }, token })).status).toBe(201);
    expect((await server.fetch("cancellations", { json: { of: [rollout.id] }, token })).status).toBe(200);
  });

  test("nobody with a body of another shape", async () => {
    await using server = await createServer();
    const bodies = [{}, { of: [] }, { of: "nuc" }, { of: [""] }, { of: Array.from({ length: 101 }, () => "nuc") }];
    for (const json of bodies) {
      for (const path of ["retries", "cancellations"]) expect((await server.fetch(path, { json })).status).toBe(400);
    }
    expect((await server.fetch("retries", { json: { of: ["nuc"], workspace: "nope" } })).status).toBe(404);
  });
});
