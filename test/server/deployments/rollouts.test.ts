/** POST /rollouts: all faults at once, what gives way to what, and what agents are told when. */
import { describe, expect, test } from "bun:test";
import { deploymentListSchema, deploymentSchema } from "../../../src/api/deployments.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { statusSchema } from "../../../src/api/status.ts";
import { createdTokenSchema } from "../../../src/api/tokens.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type StartedRollout, type TestCoordinator } from "../../support/coordinator.ts";
import {
  logEntry,
  machineState,
  numberEntries,
  outcomeEntry,
  phaseEntry,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";
import { createTinyPath, storePathFor } from "../../support/tiny-path.ts";

const SSH = { name: "ssh", kind: "tcp", port: 22 };
const ONE = createTinyPath("one");
const TWO = createTinyPath("two", { references: [ONE.storePath] });
const THREE = createTinyPath("three");

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE, TWO, THREE);
  return server;
}

function idOf(rollout: StartedRollout): DeploymentId {
  const [deployment] = rollout.deployments;
  if (deployment === undefined) throw new Error("the rollout has no deployment");
  return deployment.id;
}

async function stateOf(server: TestCoordinator, rollout: StartedRollout) {
  const answer = await server.fetch(`deployments/${idOf(rollout)}`);
  const { state, reason } = deploymentSchema.parse(await answer.json());
  return reason === null ? state : `${state}: ${reason}`;
}

const told = (agent: ScriptedAgent) =>
  agent.received.flatMap((frame) =>
    frame.kind === "offer" || frame.kind === "cancel" ? [`${frame.kind} ${frame.deploymentId}`] : [],
  );
const NEWER = "superseded: A newer deployment took its place.";

describe("refused, all faults at once, nothing started", () => {
  const good = { agents: { nuc: ONE.storePath }, mode: "switch" };
  const absent = storePathFor("absent");
  const cases: readonly (readonly [what: string, request: object, faults: readonly string[]])[] = [
    ["an unknown agent", { ...good, agents: { nuc: ONE.storePath, tuc: ONE.storePath } }, ["agent tuc: no such agent"]],
    ["a name that is none", { ...good, agents: { "../x": ONE.storePath } }, ['"../x" is no agent name']],
    ["an absent path", { ...good, agents: { nuc: absent } }, [`${absent} is not in the cache default: push it first`]],
    ["what is no path", { ...good, agents: { nuc: "/etc/passwd" } }, ["agent nuc: "]],
    ["an absent script", { ...good, rollbackScript: { "x86_64-linux": absent } }, [`${absent} is not in the cache`]],
    [
      "a script that is no path",
      { ...good, rollbackScript: { "x86_64-linux": "sh" } },
      ["rollbackScript for x86_64-linux: "],
    ],
    [
      "a health check whose program was never pushed",
      { ...good, healthChecks: [{ name: "smoke", kind: "command", command: [`${absent}/bin/smoke`] }] },
      [`${absent} is not in the cache`],
    ],
    [
      "health checks for whom nothing is deployed to",
      { ...good, agentHealthChecks: { off: [SSH] } },
      ['health checks for "off": it is not among the agents'],
    ],
    [
      "two health checks of one name",
      { ...good, healthChecks: [SSH], agentHealthChecks: { nuc: [SSH] } },
      ['agent nuc: two health checks are called "ssh"'],
    ],
    ["no agent at all", { ...good, agents: {} }, ["the spec names no agent"]],
    [
      "one that is offline, with --require-online",
      { ...good, agents: { off: ONE.storePath }, requireOnline: true },
      ["agent off: it is not online"],
    ],
    [
      "everything at once",
      {
        ...good,
        requireOnline: true,
        agents: { off: ONE.storePath, tuc: absent, nuc: "x" },
        rollbackScript: { a: "b" },
      },
      [
        "rollbackScript for a: ",
        "agent off: it is not online",
        "agent tuc: no such agent",
        "agent nuc: ",
        "push it first",
      ],
    ],
    [
      "the unknown agent's absent path too",
      { ...good, agents: { tuc: absent } },
      ["agent tuc: no such agent", "push it first"],
    ],
  ];
  for (const [what, request, faults] of cases) {
    test(what, async () => {
      await using server = await createServer();
      const agent = await server.connectAgent("nuc");
      await (await server.connectAgent("off")).disconnect();
      const answer = await server.fetch("rollouts", { json: request });
      expect(answer.status).toBe(422);
      const { errors = [], hint } = problemSchema.parse(await answer.json());
      for (const fault of faults) expect(errors.join("\n")).toContain(fault);
      expect(errors).toHaveLength(faults.length);
      expect(hint).toContain("nixdeploy agents");
      expect(told(agent)).toEqual([]);
      expect(deploymentListSchema.parse(await (await server.fetch("deployments")).json()).deployments).toEqual([]);
    });
  }

  test("a body of another shape", async () => {
    await using server = await createServer();
    const shell = { name: "sh", kind: "command", command: ["/bin/sh", "-c", "true"] };
    for (const json of [
      ...[{}, { ...good, mode: "dance" }, { ...good, agents: [] }, { ...good, agents: { nuc: 5 } }],
      ...[shell, { ...SSH, prot: 22 }, { name: "x", kind: "dns" }, 5].map((check) => ({
        ...good,
        healthChecks: [check],
      })),
      { ...good, agentHealthChecks: { nuc: [shell] } },
    ]) {
      expect((await server.fetch("rollouts", { json })).status).toBe(400);
    }
  });
});

describe("recorded", () => {
  test("who, what and how much, in the order of names", async () => {
    await using server = await createServer();
    for (const name of ["c", "a", "b"]) await (await server.connectAgent(name)).disconnect();
    const { token } = await server.createToken("activate");
    const agents = { c: TWO.storePath, a: ONE.storePath, b: TWO.storePath };
    const json = { agents, mode: "boot", description: "weekly", origin: { commit: "abc", runUrl: "https://ci/1" } };
    const answer = await server.fetch("rollouts", { json, token });
    expect(answer.status).toBe(201);
    expect(await answer.json()).toMatchObject({
      workspace: "default",
      description: "weekly",
      origin: { commit: "abc", runUrl: "https://ci/1" },
      startedBy: { token: expect.stringMatching(/^\w{16}$/), description: expect.any(String) },
      url: expect.stringMatching(/^http:\/\/coordinator\.test\/rollouts\/\w{16}$/),
      deployments: [
        { agent: "a", closureSizeBytes: ONE.nar.length, state: "queued", mode: "boot", startedAt: null },
        { agent: "b", closureSizeBytes: ONE.nar.length + TWO.nar.length, contact: "unknown", fetchedBytes: null },
        { agent: "c", storePath: TWO.storePath, previousPath: null, exitCode: null, phaseMs: {} },
      ],
    });
  });

  test("the latest are in the status, newest first, with where they came from; only those of the token's workspace", async () => {
    await using server = await createServer();
    await server.connectAgent("nuc");
    const agents = { nuc: ONE.storePath };
    for (const actor of ["ada", "bob", "cyd", "dan"]) {
      await server.fetch("rollouts", { json: { agents, mode: "switch", origin: { actor } } });
      await server.clock.advance(1_000);
    }
    const read = async (token?: string) => {
      const answer = await server.fetch("status", token === undefined ? {} : { token });
      return statusSchema.parse(await answer.json()).latestRollouts.map(({ origin }) => origin.actor);
    };
    expect(await read()).toEqual(["dan", "cyd", "bob"]);
    await server.fetch("workspaces", { json: { name: "other" } });
    const other = await server.fetch("tokens", { json: { kind: "read", workspace: "other" } });
    expect(await read(createdTokenSchema.parse(await other.json()).token)).toEqual([]);
  });

  test("the health checks for all and for the agent come with the offer", async () => {
    await using server = await createServer();
    const [nuc, tv] = [await server.connectAgent("nuc"), await server.connectAgent("tv")];
    const agents = { nuc: ONE.storePath, tv: ONE.storePath };
    const smoke = { name: "smoke", kind: "command", command: [`${THREE.storePath}/bin/smoke`, "-x"], attempts: 1 };
    const json = { agents, healthChecks: [SSH], agentHealthChecks: { tv: [smoke] }, mode: "switch" };
    expect((await server.fetch("rollouts", { json })).status).toBe(201);
    expect(nuc.framesOf("offer")).toMatchObject([{ healthChecks: [SSH] }]);
    expect(tv.framesOf("offer")).toMatchObject([{ healthChecks: [SSH, smoke] }]);
  });

  test("the script of the agent's kind of system comes with the offer", async () => {
    await using server = await createServer();
    const intel = await server.connectAgent("intel");
    const arm = await server.connectAgent("arm", { system: "aarch64-linux" });
    const rollbackScript = { "x86_64-linux": THREE.storePath };
    const agents = { intel: ONE.storePath, arm: ONE.storePath };
    await server.fetch("rollouts", { json: { agents, rollbackScript, mode: "test" } });
    expect(intel.framesOf("offer")).toMatchObject([{ rollbackScript: THREE.storePath, mode: "test" }]);
    expect(arm.framesOf("offer")).toMatchObject([{ rollbackScript: null }]);
  });

  test("listed newest first, with a limit, by agent", async () => {
    await using server = await createServer();
    for (const name of ["a", "b"]) await (await server.connectAgent(name)).disconnect();
    const started: StartedRollout[] = [];
    for (const name of ["a", "b", "a"]) {
      started.push(await server.activate(ONE, name));
      await server.clock.advance(1);
    }
    const list = async (query: string) => {
      const answer = await server.fetch(`deployments${query}`);
      return deploymentListSchema.parse(await answer.json()).deployments.map(({ id }) => id);
    };
    const [first, second, third] = started.map(idOf);
    expect(await list("")).toEqual([third, second, first] as DeploymentId[]);
    expect(await list("?limit=1")).toEqual([third] as DeploymentId[]);
    expect(await list("?agent=a")).toEqual([third, first] as DeploymentId[]);
    expect(await list("?agent=nobody")).toEqual([]);
    for (const query of ["?limit=x", "?limit=1001", "?limit=", "?agent=../x"]) {
      expect((await server.fetch(`deployments${query}`)).status).toBe(400);
    }
  });

  test("two of one agent in the same millisecond: the later one is the latest", async () => {
    await using server = await createServer();
    await (await server.connectAgent("nuc")).disconnect();
    for (let n = 0; n < 5; n += 1) {
      const latest = idOf(await server.activate(ONE, "nuc"));
      const { agents } = (await (await server.fetch("agents")).json()) as { agents: [{ deployment: { id: string } }] };
      expect(agents[0].deployment.id).toBe(latest);
    }
  });

  for (const path of [
    "rollouts/0123456789abcdfg",
    "deployments/0123456789abcdfg",
    "deployments/0123456789abcdfg/log",
  ]) {
    test(`${path} is not there`, async () => {
      await using server = await createServer();
      expect((await server.fetch(path)).status).toBe(404);
      expect((await server.fetch(path.replace("0123456789abcdfg", "x"))).status).toBe(400);
    });
  }
});

describe("an agent that is there", () => {
  test("is offered a deployment at once, and the next when it is done", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const first = await server.activate(ONE, "nuc");
    await agent.report(idOf(first), numberEntries([phaseEntry("fetching")]));
    const second = await server.activate(TWO, "nuc");
    expect(told(agent)).toEqual([`offer ${idOf(first)}`]);
    expect(await stateOf(server, second)).toBe("queued");
    await agent.report(idOf(first), numberEntries([outcomeEntry("succeeded", "it runs")], 2));
    expect(told(agent)).toEqual([`offer ${idOf(first)}`, `offer ${idOf(second)}`]);
    expect([await stateOf(server, first), await stateOf(server, second)]).toEqual(["succeeded: it runs", "offered"]);
  });

  test("gets only the newest of those that waited", async () => {
    await using server = await createServer();
    const agent = await server.connectAgent("nuc");
    const busy = await server.activate(ONE, "nuc");
    await agent.report(idOf(busy), numberEntries([phaseEntry("activating")]));
    const older = await server.activate(TWO, "nuc");
    const newer = await server.activate(THREE, "nuc");
    expect(await stateOf(server, older)).toBe(NEWER);
    await agent.report(idOf(busy), numberEntries([outcomeEntry("failed")], 2));
    expect(told(agent)).toEqual([`offer ${idOf(busy)}`, `offer ${idOf(newer)}`]);
  });

  test("is asked to stop what it has not accepted when a newer one comes; its answer decides", async () => {
    for (const [answer, state] of [
      ["cancelled", NEWER],
      ["succeeded", "succeeded: it succeeded"],
    ] as const) {
      await using server = await createServer();
      const agent = await server.connectAgent("nuc");
      const first = await server.activate(ONE, "nuc");
      const second = await server.activate(TWO, "nuc");
      expect(told(agent)).toEqual([`offer ${idOf(first)}`, `cancel ${idOf(first)}`]);
      expect([await stateOf(server, first), await stateOf(server, second)]).toEqual(["offered", "queued"]);
      await agent.report(idOf(first), numberEntries([outcomeEntry(answer)]));
      expect(await stateOf(server, first)).toBe(state);
      expect(told(agent).slice(2)).toEqual([`offer ${idOf(second)}`]);
    }
  });

  test("holds up nobody else", async () => {
    await using server = await createServer();
    const quick = await server.connectAgent("quick");
    await server.connectAgent("stuck");
    const first = await server.activate(ONE, "quick", "stuck");
    const [deployment] = first.deployments.filter(({ agent }) => String(agent) === "quick");
    if (deployment === undefined) throw new Error("no deployment");
    await quick.report(deployment.id, numberEntries([outcomeEntry("succeeded")]));
    const second = await server.activate(TWO, "quick");
    expect(told(quick)).toEqual([`offer ${deployment.id}`, `offer ${idOf(second)}`]);
  });
});

describe("an agent that is away", () => {
  test("gets the newest when it returns", async () => {
    await using server = await createServer();
    const { identity, disconnect } = await server.connectAgent("nuc");
    await disconnect();
    const older = await server.activate(ONE, "nuc");
    const newer = await server.activate(TWO, "nuc");
    expect([await stateOf(server, older), await stateOf(server, newer)]).toEqual([NEWER, "queued"]);
    const agent = await server.connectAgent(identity);
    expect(told(agent)).toEqual([`offer ${idOf(newer)}`]);
  });

  test("keeps its offer, and gets it again", async () => {
    await using server = await createServer();
    const first = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await first.disconnect();
    expect(await stateOf(server, rollout)).toBe("offered");
    const again = await server.connectAgent(first.identity);
    expect(told(again)).toEqual([`offer ${idOf(rollout)}`]);
  });

  test("loses an offer to a newer one", async () => {
    await using server = await createServer();
    const first = await server.connectAgent("nuc");
    const older = await server.activate(ONE, "nuc");
    const newer = await server.activate(TWO, "nuc");
    await first.disconnect();
    expect([await stateOf(server, older), await stateOf(server, newer)]).toEqual(["offered", "queued"]);
    expect(told(await server.connectAgent(first.identity))).toEqual([`offer ${idOf(newer)}`]);
    expect(await stateOf(server, older)).toBe(NEWER);
  });

  const lost = [
    { phase: "fetching", remembers: true, after: "fetching" },
    { phase: "fetching", remembers: false, after: "offered" },
    { phase: "activating", remembers: true, after: "activating" },
    {
      phase: "activating",
      remembers: false,
      after: "degraded: The agent came back without any memory of it; look at what the machine runs.",
    },
    { phase: "rolling-back", remembers: true, after: "rolling-back" },
  ] as const;
  for (const { phase, remembers, after } of lost) {
    test(`while ${phase}, and ${remembers ? "remembers" : "has forgotten"} it`, async () => {
      await using server = await createServer();
      const first = await server.connectAgent("nuc");
      const rollout = await server.activate(ONE, "nuc");
      await first.report(idOf(rollout), numberEntries([phaseEntry(phase)]));
      await first.disconnect();
      expect(await stateOf(server, rollout)).toBe(phase);
      const again = await server.connectAgent(first.identity, {
        state: machineState(remembers ? idOf(rollout) : null),
      });
      expect(await stateOf(server, rollout)).toBe(after);
      expect(told(again)).toEqual(after === "offered" ? [`offer ${idOf(rollout)}`] : []);
    });
  }

  const returning = [
    { phase: "fetching", remembers: true, after: "fetching", told: "cancel older" },
    { phase: "fetching", remembers: false, after: NEWER, told: "offer newer" },
    { phase: "activating", remembers: true, after: "activating", told: "" },
  ] as const;
  for (const { phase, remembers, after, told: expected } of returning) {
    test(`while ${phase}, ${remembers ? "remembers" : "has forgotten"} it, and a newer one waits`, async () => {
      await using server = await createServer();
      const first = await server.connectAgent("nuc");
      const older = await server.activate(ONE, "nuc");
      await first.report(idOf(older), numberEntries([phaseEntry(phase)]));
      await first.disconnect();
      const newer = await server.activate(TWO, "nuc");
      const again = await server.connectAgent(first.identity, { state: machineState(remembers ? idOf(older) : null) });
      expect(await stateOf(server, older)).toBe(after);
      const names = new Map(
        [
          [idOf(older), "older"],
          [idOf(newer), "newer"],
        ].map(([id, name]) => [String(id), name]),
      );
      const words = told(again).map((text) => text.replace(/\w{16}$/, (id) => names.get(id) ?? id));
      expect(words.join()).toBe(expected);
    });
  }
});

describe("reports", () => {
  async function start() {
    const server = await createServer();
    const agent = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    const log = async () => {
      const answer = await server.fetch(`deployments/${idOf(rollout)}/log`);
      const { lines } = (await answer.json()) as { lines: { n: number; text: string }[] };
      return lines.map(({ n, text }) => `${n} ${text}`);
    };
    return { server, agent, rollout, id: idOf(rollout), log };
  }
  const lines = (from: number, to: number) =>
    numberEntries(
      Array.from({ length: to - from + 1 }, (_, index) => logEntry(`line ${from + index}`)),
      from,
    );
  const texts = (to: number) => Array.from({ length: to }, (_, index) => `${index + 1} line ${index + 1}`);

  test("what was told twice is stored once", async () => {
    const { server, agent, id, log } = await start();
    await using _ = server;
    expect(await agent.report(id, lines(1, 3))).toBe(3);
    expect(await agent.report(id, lines(1, 3))).toBe(3);
    expect(await agent.report(id, lines(2, 5))).toBe(5);
    expect(await log()).toEqual(texts(5));
  });

  test("what is behind a gap is not taken", async () => {
    const { server, agent, id, log } = await start();
    await using _ = server;
    expect(await agent.report(id, lines(2, 3))).toBe(0);
    expect(await agent.report(id, [...lines(1, 1), ...lines(3, 4)])).toBe(1);
    expect(await log()).toEqual(texts(1));
  });

  test("after a reconnect it goes on where it was acknowledged", async () => {
    const { server, agent, id, log } = await start();
    await using _ = server;
    await agent.report(id, [...numberEntries([phaseEntry("fetching")]), ...lines(2, 2)]);
    await agent.disconnect();
    const again = await server.connectAgent(agent.identity, { state: machineState(id) });
    expect(await again.report(id, lines(2, 3))).toBe(3);
    expect(await log()).toEqual(["2 line 2", "3 line 3"]);
  });

  test("of a deployment nobody knows, or of another agent's, are acknowledged and change nothing", async () => {
    const { server, agent, id, rollout } = await start();
    await using _ = server;
    const other = await server.connectAgent("tuc");
    expect(await other.report(id, numberEntries([logEntry("x"), outcomeEntry("failed")]))).toBe(2);
    expect(await stateOf(server, rollout)).toBe("offered");
    expect(await agent.report("0123456789abcdfg" as DeploymentId, lines(1, 7))).toBe(7);
  });

  test("after the end are stored, and change no state", async () => {
    const { server, agent, id, rollout, log } = await start();
    await using _ = server;
    await agent.report(id, numberEntries([outcomeEntry("succeeded", "done")]));
    expect(await agent.report(id, [...lines(2, 2), ...numberEntries([outcomeEntry("failed")], 3)])).toBe(3);
    expect(await stateOf(server, rollout)).toBe("succeeded: done");
    expect(await log()).toEqual(["2 line 2"]);
  });

  test("an outcome brings its facts", async () => {
    const { server, agent, id } = await start();
    await using _ = server;
    await agent.report(id, numberEntries([{ ...phaseEntry("fetching"), previousPath: THREE.storePath } as never]));
    await server.clock.advance(5_000);
    await agent.report(id, numberEntries([{ ...outcomeEntry("degraded", "2 units failed"), exitCode: 4 } as never], 2));
    expect(await (await server.fetch(`deployments/${id}`)).json()).toMatchObject({
      state: "degraded",
      reason: "2 units failed",
      exitCode: 4,
      fetchedBytes: 1_000,
      previousPath: THREE.storePath,
      phaseMs: { fetching: 10, activating: 20 },
      startedAt: "2026-01-01T00:00:00.000Z",
      finishedAt: "2026-01-01T00:00:05.000Z",
    });
  });

  test("the log comes in pages, across reports", async () => {
    const { server, agent, id } = await start();
    await using _ = server;
    for (let from = 1; from <= 21; from += 7) await agent.report(id, lines(from, from + 6));
    const seen: number[] = [];
    for (let next: number | null = 0; next !== null; ) {
      const answer = await server.fetch(`deployments/${id}/log?after=${next}&limit=5`);
      const page = (await answer.json()) as { lines: { n: number }[]; next: number | null };
      seen.push(...page.lines.map(({ n }) => n));
      next = page.next;
    }
    expect(seen).toEqual(Array.from({ length: 21 }, (_, index) => index + 1));
  });
});
