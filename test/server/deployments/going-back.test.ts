/** POST /rollbacks and /redeployments: what of what is named is started again, and what is refused, all at once. */
import { describe, expect, test } from "bun:test";
import { againPlanSchema } from "../../../src/api/going-back.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { type RolloutDto, rolloutSchema } from "../../../src/api/rollouts.ts";
import type { Outcome } from "../../../src/deployment.ts";
import { parseDeploymentId } from "../../../src/names.ts";
import { findBefore, whyNotBack } from "../../../src/server/deployments/rollbacks.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { numberEntries, outcomeEntry, phaseEntry, type ScriptedAgent } from "../../support/scripted-agent.ts";
import { createTinyPath, storePathFor, type TinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");
const THREE = createTinyPath("three");
const BY_HAND = storePathFor("installed-by-hand");

async function createServer(): Promise<TestCoordinator> {
  const server = await createTestCoordinator();
  await server.publishUnseen(ONE, TWO, THREE);
  return server;
}

type Step = readonly [agent: ScriptedAgent, outcome: Outcome, previous?: string | null];

/** Rolls a path out to agents, which end it each in its own way and say what ran before. */
async function rollOut(server: TestCoordinator, path: TinyPath, steps: readonly Step[], more: object = {}) {
  const agents = Object.fromEntries(steps.map(([agent]) => [agent.identity.name, path.storePath]));
  const answer = await expectOk(await server.fetch("rollouts", { json: { agents, mode: "switch", ...more } }));
  const rollout = rolloutSchema.parse(await answer.json());
  for (const step of steps) await end(rollout, step);
  return rollout;
}

async function end(rollout: RolloutDto, [agent, outcome, previousPath = null]: Step): Promise<void> {
  const id = rollout.deployments.find((each) => each.agent === agent.identity.name)?.id;
  if (id === undefined) throw new Error("it is not in the rollout");
  await agent.report(id, numberEntries([phaseEntry("activating"), { ...outcomeEntry(outcome), previousPath }]));
}

async function post(server: TestCoordinator, path: "rollbacks" | "redeployments", json: object): Promise<RolloutDto> {
  return rolloutSchema.parse(await (await expectOk(await server.fetch(path, { json }))).json());
}

async function faultsOf(server: TestCoordinator, path: string, json: object): Promise<readonly string[]> {
  const answer = await server.fetch(path, { json });
  expect(answer.status).toBe(422);
  const { title, errors = [] } = problemSchema.parse(await answer.json());
  expect(title).toContain("nothing was started");
  return errors;
}

const summarize = ({ deployments }: RolloutDto) => deployments.map(({ agent, storePath }) => `${agent} ${storePath}`);
const idOf = (rollout: RolloutDto, index = 0) => rollout.deployments[index]?.id ?? "";

describe("a rollback", () => {
  test("of an agent goes to what the device says ran before, and twice is where it began", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    await rollOut(server, ONE, [[nuc, "succeeded", BY_HAND]]);
    await rollOut(server, TWO, [[nuc, "succeeded", ONE.storePath]]);
    const back = await post(server, "rollbacks", { of: ["nuc"] });
    expect(summarize(back)).toEqual([`nuc ${ONE.storePath}`]);
    expect(back.deployments[0]?.closureSizeBytes).toBe(ONE.nar.length);
    expect(back.description).toBe("rolled back: nuc");
    expect(nuc.framesOf("offer").at(-1)).toMatchObject({ storePath: ONE.storePath, mode: "switch", retry: true });
    await end(back, [nuc, "succeeded", TWO.storePath]);
    expect(summarize(await post(server, "rollbacks", { of: ["nuc"] }))).toEqual([`nuc ${TWO.storePath}`]);
  });

  test("is asked for as before: policy of what is left, health checks of what is gone back to", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const ssh = { name: "ssh", kind: "tcp", port: 22 };
    const script = { "x86_64-linux": THREE.storePath };
    await rollOut(server, ONE, [[nuc, "succeeded"]], { healthChecks: [ssh], rollbackScript: script });
    await rollOut(server, TWO, [[nuc, "degraded", ONE.storePath]], { policy: { onUnitFailure: "keep" }, mode: "boot" });
    await post(server, "rollbacks", { of: ["nuc"] });
    expect(nuc.framesOf("offer").at(-1)).toMatchObject({
      ...{ storePath: ONE.storePath, mode: "boot", policy: { onUnitFailure: "keep" } },
      ...{ healthChecks: [ssh], rollbackScript: THREE.storePath },
    });
  });

  test("makes it the default also of what was only tried", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    await rollOut(server, ONE, [[nuc, "succeeded"]]);
    await rollOut(server, TWO, [[nuc, "succeeded", ONE.storePath]], { mode: "test" });
    await post(server, "rollbacks", { of: ["nuc"] });
    expect(nuc.framesOf("offer").at(-1)).toMatchObject({ storePath: ONE.storePath, mode: "switch" });
  });

  test("of what left nothing there goes back from what runs", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    await rollOut(server, ONE, [[nuc, "succeeded"]]);
    await rollOut(server, TWO, [[nuc, "succeeded", ONE.storePath]]);
    const failed = await rollOut(server, THREE, [[nuc, "rolled-back", TWO.storePath]]);
    expect(await faultsOf(server, "rollbacks", { of: [failed.id] })).toEqual([
      `nothing to go back to: nuc: deployment ${idOf(failed)} is rolled-back: it left nothing there`,
    ]);
    expect(summarize(await post(server, "rollbacks", { of: ["nuc"] }))).toEqual([`nuc ${ONE.storePath}`]);
  });

  test("of a rollout goes back wherever it left something and nothing newer came", async () => {
    await using server = await createServer();
    const [a, b, c] = [await server.connectAgent("a"), await server.connectAgent("b"), await server.connectAgent("c")];
    await rollOut(server, ONE, [
      [a, "succeeded"],
      [b, "succeeded"],
      [c, "succeeded"],
    ]);
    const bad = await rollOut(server, TWO, [
      [a, "succeeded", ONE.storePath],
      [b, "failed"],
      [c, "succeeded", ONE.storePath],
    ]);
    const newer = await rollOut(server, THREE, [[c, "succeeded", TWO.storePath]]);
    expect(summarize(await post(server, "rollbacks", { of: [bad.id] }))).toEqual([`a ${ONE.storePath}`]);
    // By its id a deployment is gone back from whatever came after it.
    expect(summarize(await post(server, "rollbacks", { of: [idOf(bad, 2)] }))).toEqual([`c ${ONE.storePath}`]);
    expect(newer.deployments).toHaveLength(1);
  });

  test("is refused with every fault at once, and nothing is started", async () => {
    await using server = await createServer();
    const [a, b, c] = [await server.connectAgent("a"), await server.connectAgent("b"), await server.connectAgent("c")];
    await server.connectAgent("new");
    await rollOut(server, ONE, [[a, "succeeded"]]);
    await rollOut(server, ONE, [[b, "succeeded", BY_HAND]]);
    await rollOut(server, ONE, [[c, "succeeded", TWO.storePath]]);
    const running = await server.activate(TWO, "c");
    expect(await faultsOf(server, "rollbacks", { of: ["nobody", "new", "a", "b", "c", running.id] })).toEqual([
      '"nobody": no deployment, rollout or agent is called so',
      "nothing to go back to: new: nothing that was deployed runs there",
      `nothing to go back to: a: what ran there before ${ONE.storePath} is not known`,
      "nothing to go back to: c: something is being deployed there: cancel it first (`nixdeploy cancel c`)",
      `nothing to go back to: c: deployment ${idOf(running)} is offered: cancel it (\`nixdeploy cancel ${idOf(running)}\`)`,
      `${BY_HAND} is not in the cache default: push it first`,
    ]);
    expect(a.framesOf("offer")).toHaveLength(1);
  });

  test("with a key is started once", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    await rollOut(server, TWO, [[nuc, "succeeded", ONE.storePath]]);
    const headers = { "idempotency-key": "k" };
    const answers = [];
    for (let count = 0; count < 2; count += 1) {
      answers.push(await server.fetch("rollbacks", { json: { of: ["nuc"] }, headers }));
    }
    expect(answers.map(({ status }) => status)).toEqual([201, 200]);
    expect(nuc.framesOf("offer").length).toBeGreaterThan(1);
  });
});

describe("whether an agent goes back from a deployment", () => {
  const OLD = parseDeploymentId("aaaaaaaaaaaaaaaa");
  const NEW = parseDeploymentId("bbbbbbbbbbbbbbbb");
  type Row = Parameters<typeof whyNotBack>[0]["row"];

  test.each<readonly [Partial<Row>, boolean, string | null]>([
    [{}, false, null],
    [{ state: "degraded" }, false, null],
    [{ state: "expired", late_outcome: "succeeded" }, false, null],
    [{ state: "activating" }, false, "is activating: cancel it"],
    [{ state: "queued" }, true, "is queued: cancel it"],
    [{ state: "failed" }, true, "is failed: it left nothing there"],
    [{ state: "rolled-back" }, true, "it left nothing there"],
    [{ state: "expired", late_outcome: "rolled-back" }, true, "it left nothing there"],
    [{ mode: "dry-activate" }, true, "only asked what would change"],
    [{ id: OLD }, false, `has a newer one behind it (${NEW}, succeeded)`],
    [{ id: OLD }, true, null],
  ])("%p, named: %p", (changes, isNamed, why) => {
    const row: Row = { id: NEW, state: "succeeded", late_outcome: null, mode: "switch", ...changes };
    const live = [{ id: NEW, state: "succeeded", late_outcome: null } as const];
    const found = whyNotBack({ agent: "nuc", row, isNamed, history: { live, isRunning: false } });
    if (why === null) expect(found).toBeNull();
    else expect(found).toContain(why);
    const busy = whyNotBack({ agent: "nuc", row, isNamed, history: { live, isRunning: true } });
    expect(busy).toContain("cancel");
  });
});

describe("what ran before", () => {
  const path = (name: string) => storePathFor(name);
  const row = (id: string, own: string, previous: string | null = null) => ({
    ...{ id: id as never, store_path: path(own), previous_path: previous === null ? null : path(previous) },
  });
  test.each([
    ["what the device said", [row("3", "c", "b"), row("2", "x", "y")], "b"],
    ["the deployment before, when it said nothing", [row("3", "c"), row("2", "b", "a")], "b"],
    ["another path than its own", [row("3", "c", "c"), row("2", "c", "c"), row("1", "a")], "a"],
    ["what the one before the same path came after", [row("3", "c", "c"), row("2", "c", "b"), row("1", "a")], "b"],
    ["nothing that is known", [row("3", "c")], null],
    ["nothing but itself", [row("3", "c", "c"), row("2", "c")], null],
  ])("is %s", (_what, live, expected) => {
    const [latest] = live;
    if (latest === undefined) throw new Error("there is no deployment");
    expect(findBefore(latest, live)).toBe(expected === null ? null : path(expected));
  });
});

describe("a redeployment", () => {
  test("starts an older rollout once more, whatever became of it and came after it", async () => {
    await using server = await createServer();
    const [a, b] = [await server.connectAgent("a"), await server.connectAgent("b")];
    const old = await rollOut(
      server,
      ONE,
      [
        [a, "succeeded"],
        [b, "rolled-back"],
      ],
      { mode: "test", policy: { confirmWindowMs: 5_000 } },
    );
    await rollOut(server, TWO, [
      [a, "succeeded"],
      [b, "succeeded"],
    ]);
    const again = await post(server, "redeployments", { of: [old.id] });
    expect(summarize(again)).toEqual([`a ${ONE.storePath}`, `b ${ONE.storePath}`]);
    expect(again.description).toBe(`deployed again: ${old.id}`);
    expect(b.framesOf("offer").at(-1)).toMatchObject({ mode: "test", policy: { confirmWindowMs: 5_000 }, retry: true });
    expect(again.deployments.map(({ retryOf }) => retryOf)).toEqual([null, null]);
  });

  test("for some of its agents, or one deployment of it", async () => {
    await using server = await createServer();
    const [a, b] = [await server.connectAgent("a"), await server.connectAgent("b")];
    const old = await rollOut(server, ONE, [
      [a, "succeeded"],
      [b, "succeeded"],
    ]);
    expect(summarize(await post(server, "redeployments", { of: [old.id], agents: ["b"] }))).toEqual([
      `b ${ONE.storePath}`,
    ]);
    expect(summarize(await post(server, "redeployments", { of: [idOf(old)] }))).toEqual([`a ${ONE.storePath}`]);
  });

  test("is refused with every fault at once", async () => {
    await using server = await createServer();
    const a = await server.connectAgent("a");
    const old = await rollOut(server, ONE, [[a, "succeeded"]]);
    const other = await rollOut(server, TWO, [[a, "succeeded"]]);
    await server.coordinator.services.database.deleteFrom("paths").where("store_path", "=", ONE.storePath).execute();
    const json = { of: ["a", "nobody", old.id, other.id], agents: ["a", "tv"] };
    expect(await faultsOf(server, "redeployments", json)).toEqual([
      '"nobody": no deployment, rollout or agent is called so',
      "a: it is an agent; name a rollout or a deployment, or use `nixdeploy rollback`",
      "agent tv: nothing of what is named was for it",
      `a: two deployments are named (${idOf(old)}, ${idOf(other)}), and it can take only one`,
      `${ONE.storePath} is not in the cache default: push it first`,
    ]);
  });
});

describe("a plan of one", () => {
  const RUNNING = {
    ...{ profilePath: TWO.storePath, generation: 2, currentPath: null, bootedPath: null, storeFreeBytes: null },
    inFlight: null,
  };

  async function planOf(server: TestCoordinator, path: string, json: object) {
    const answer = await expectOk(await server.fetch(path, { json }));
    return againPlanSchema.parse(await answer.json());
  }

  test("says what would change against what runs, which deployment it is about, and starts nothing", async () => {
    await using server = await createServer();
    const profile = "/nix/var/nix/profiles/tools";
    const nuc = await server.connectAgent("nuc", { state: RUNNING, profile });
    const first = await rollOut(server, ONE, [[nuc, "succeeded"]]);
    const second = await rollOut(server, TWO, [[nuc, "succeeded", ONE.storePath]]);
    const third = await rollOut(server, THREE, [[nuc, "failed"]]);
    const of = (rollout: RolloutDto) => ({
      agent: "nuc",
      deployment: idOf(rollout),
      rollout: rollout.id,
      contact: "online",
    });
    for (const [path, word, about, to] of [
      ["rollback-plans", "nuc", second, ONE],
      ["retry-plans", "nuc", third, THREE],
      ["redeployment-plans", first.id, first, ONE],
    ] as const) {
      const plan = await planOf(server, path, { of: [word] });
      expect(plan.agents as unknown).toEqual([
        { ...of(about), from: TWO.storePath, to: to.storePath, diff: 0, why: null },
      ]);
      expect(plan.diffs).toMatchObject([{ from: TWO.storePath, to: to.storePath, fetchPaths: 1 }]);
    }
    expect(nuc.framesOf("offer")).toHaveLength(3);
  });

  test("is refused as the thing itself, with every fault", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const done = await rollOut(server, ONE, [[nuc, "succeeded"]]);
    for (const [path, start] of [
      ["rollback-plans", "rollbacks"],
      ["retry-plans", "retries"],
      ["redeployment-plans", "redeployments"],
    ] as const) {
      const json = { of: ["nobody", "nuc"] };
      const faults = await faultsOf(server, path, json);
      expect(faults).toHaveLength(2);
      expect(await faultsOf(server, start, json)).toEqual([...faults]);
    }
    expect(await faultsOf(server, "redeployment-plans", { of: [done.id], agents: ["tv"] })).toEqual([
      "agent tv: nothing of what is named was for it",
    ]);
  });
});
