/** GET /events: everything that changes, once, in order, to whoever may watch it; and what is missed is said. */
import { describe, expect, test } from "bun:test";
import { type NewsEvent, streamEventSchema } from "../../../src/api/events.ts";
import { createEventStreamParser } from "../../../src/http/event-stream.ts";
import { findGap } from "../../../src/server/events/event-stream.ts";
import {
  createTestCoordinator,
  expectOk,
  type RequestOptions,
  type TestCoordinator,
} from "../../support/coordinator.ts";
import { machineState, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const ONE = createTinyPath("one");
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** Reads the stream until it is hung up; the clock goes on so that it looks again. */
async function watch(server: TestCoordinator, path = "events", options: RequestOptions = {}) {
  const hangUp = new AbortController();
  const answer = await expectOk(await server.fetch(path, { signal: hangUp.signal, ...options }));
  const events: NewsEvent[] = [];
  const positions: number[] = [];
  let isOpen = true;
  const parser = createEventStreamParser();
  const reader = answer.body?.getReader();
  const reading = (async () => {
    for (let next = await reader?.read(); next?.done === false; next = await reader?.read()) {
      for (const { event, data } of parser.push(next.value)) {
        const parsed = streamEventSchema.parse({ event, data: JSON.parse(data) });
        if (parsed.event === "position") positions.push(parsed.data.after);
        else events.push(parsed);
      }
    }
  })()
    .catch(() => {})
    .finally(() => {
      isOpen = false;
    });
  return {
    ...{ events, positions },
    isOpen: () => isOpen,
    texts: () => events.map(describeEvent),
    async until(what: string, check: () => boolean) {
      await waitFor(what, async () => {
        await server.clock.advance(100);
        return check();
      });
    },
    async [Symbol.asyncDispose]() {
      hangUp.abort();
      await reading;
    },
  };
}

function describeEvent({ event, data }: NewsEvent): string {
  if (event === "gap") return `gap ${data.reason} ${data.after}..${data.next}`;
  const { kind, agent, data: more } = data;
  return [kind, agent, more["change"] ?? more["state"] ?? more["deployments"]]
    .filter((part) => part !== null)
    .join(" ");
}

const lastId = (events: readonly NewsEvent[]) => {
  const last = events.at(-1);
  return last?.event === "change" ? last.data.id : 0;
};

async function deploy(server: TestCoordinator, agent: Awaited<ReturnType<TestCoordinator["connectAgent"]>>) {
  const [deployment] = (await server.activate(ONE, agent.identity.name)).deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  await agent.report(
    deployment.id,
    numberEntries([phaseEntry("fetching"), outcomeEntry("failed", "The disk is full.")]),
  );
  return deployment;
}

describe("the stream", () => {
  test("has everything that happens from now on, in order, with what it is about", async () => {
    await using server = await createTestCoordinator();
    await server.publishUnseen(ONE);
    await server.connectAgent("before");
    await server.clock.advance(MINUTE_MS);
    await using stream = await watch(server);
    await stream.until("it to begin", () => stream.isOpen());
    const nuc = await server.connectAgent("nuc");
    await stream.until("the agent", () => stream.texts().includes("agent nuc online"));
    const deployment = await deploy(server, nuc);
    await stream.until("the end", () => stream.texts().includes("deployment nuc failed"));
    expect(stream.texts()).toEqual([
      ...["agent nuc registered", "agent nuc online", "rollout 1"],
      ...["queued", "offered", "fetching", "failed"].map((state) => `deployment nuc ${state}`),
    ]);
    expect(stream.events.at(-1)).toMatchObject({
      event: "change",
      data: {
        ...{ workspace: "default", kind: "deployment", agent: "nuc", storePath: ONE.storePath },
        ...{ deployment: deployment.id, rollout: deployment.rollout },
        data: { state: "failed", reason: "The disk is full." },
      },
    });
    const ids = stream.events.map(({ data }) => ("id" in data ? data.id : 0));
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
  });

  test("goes on behind the event that was seen last, across a restart", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.publishUnseen(ONE);
    const nuc = await server.connectAgent("nuc");
    await server.clock.advance(MINUTE_MS);
    let seen = 0;
    {
      await using stream = await watch(server, "events?after=0");
      await stream.until("what happened before", () => stream.texts().includes("agent nuc online"));
      seen = lastId(stream.events);
    }
    await deploy(server, nuc);
    await server.restart();
    await using stream = await watch(server, "events", { headers: { "last-event-id": String(seen) } });
    await stream.until("the rest", () => stream.texts().includes("deployment nuc failed"));
    expect(stream.texts()).toEqual([
      "rollout 1",
      ...["queued", "offered", "fetching", "failed"].map((state) => `deployment nuc ${state}`),
    ]);
  });

  test("says first where it stands, so that nothing is missed by who is cut off before anything happens", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.publishUnseen(ONE);
    const nuc = await server.connectAgent("nuc");
    await server.clock.advance(MINUTE_MS);
    let position = 0;
    {
      await using stream = await watch(server);
      await stream.until("its position", () => stream.positions.length === 1);
      position = stream.positions[0] ?? 0;
      expect(stream.events).toEqual([]);
    }
    await deploy(server, nuc);
    await server.restart();
    await using stream = await watch(server, "events", { headers: { "last-event-id": String(position) } });
    await stream.until("the rest", () => stream.texts().includes("deployment nuc failed"));
    expect([stream.texts()[0], stream.positions]).toEqual(["rollout 1", [position]]);
  });

  test("ends when the token is revoked, and refuses a cursor that is none", async () => {
    await using server = await createTestCoordinator();
    const { token, id } = await server.createToken("read");
    await using stream = await watch(server, "events", { token });
    await server.fetch(`tokens/${id}`, { method: "DELETE" });
    await stream.until("the end", () => !stream.isOpen());
    for (const bad of ["x", "-1", "1.2", "9".repeat(16)]) {
      expect((await server.fetch("events", { headers: { "last-event-id": bad } })).status).toBe(400);
      expect((await server.fetch(`events?after=${bad}`)).status).toBe(400);
    }
  });
});

describe("agents", () => {
  test("are away when they count as offline, and not for a moment's silence or a restart", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    const nuc = await server.connectAgent("nuc");
    await server.clock.advance(MINUTE_MS);
    await nuc.disconnect();
    await server.clock.advance(MINUTE_MS);
    const back = await server.connectAgent(nuc.identity, { state: machineState(null) });
    await server.clock.advance(5 * MINUTE_MS);
    await server.restart();
    await server.clock.advance(MINUTE_MS);
    const again = await server.connectAgent(nuc.identity, { state: machineState(null) });
    await server.clock.advance(5 * MINUTE_MS);
    await using stream = await watch(server, "events?after=0");
    await stream.until("the beginning", () => stream.events.length >= 2);
    expect(stream.texts()).toEqual(["agent nuc registered", "agent nuc online"]);
    await again.disconnect();
    await server.clock.advance(2 * MINUTE_MS);
    await stream.until("its absence", () => stream.texts().includes("agent nuc offline"));
    await server.connectAgent(nuc.identity, { state: machineState(null) });
    await stream.until("its return", () => stream.events.length === 4);
    expect(stream.texts().slice(2)).toEqual(["agent nuc offline", "agent nuc online"]);
    await back.disconnect();
  });

  test("that do not come back after a restart are away", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.connectAgent("nuc");
    await server.clock.advance(MINUTE_MS);
    await server.restart();
    await server.clock.advance(2 * MINUTE_MS);
    await using stream = await watch(server, "events?after=0");
    await stream.until("its absence", () => stream.texts().includes("agent nuc offline"));
  });
});

describe("what is missed", () => {
  test("because it is no longer kept is said, and the rest is sent", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.publishUnseen(ONE);
    const nuc = await server.connectAgent("nuc");
    await deploy(server, nuc);
    await nuc.disconnect();
    await server.clock.advance(31 * DAY_MS);
    await server.activate(ONE, "nuc");
    await server.restart();
    const kept = () => server.coordinator.services.database.selectFrom("events").select(["id", "kind"]).execute();
    await waitFor("the old ones to go", async () => (await kept()).length === 2);
    const firstId = Math.min(...(await kept()).map(({ id }) => id));
    await using stream = await watch(server, "events?after=1");
    await stream.until("what is there", () => stream.texts().includes("deployment nuc queued"));
    expect(stream.texts()[0]).toBe(`gap too-old 1..${firstId}`);
    await using all = await watch(server, "events?after=0");
    await all.until("what is there", () => all.texts().includes("deployment nuc queued"));
    expect(all.texts().some((text) => text.startsWith("gap"))).toBe(false);
  });

  test.each([
    ["nothing, from now on", null, null],
    ["nothing, from the beginning", 0, null],
    ["nothing, behind the last", 20, null],
    ["nothing, just before the first", 9, null],
    ["some that are gone", 8, { after: 8, next: 10, reason: "too-old" }],
    ["all of a database that is not here", 21, { after: 21, next: 21, reason: "unknown" }],
  ] as const)("%s", (_what, after, gap) => {
    expect(findGap(after, { firstId: 10, lastId: 20 })).toEqual(gap);
  });
});
