/** GET …/follow: what a follower sees, in which order, and after a cut. */
import { describe, expect, test } from "bun:test";
import type { FollowEvent } from "../../../src/api/deployments.ts";
import type { DeploymentId } from "../../../src/names.ts";
import { createTestCoordinator, type StartedRollout, type TestCoordinator } from "../../support/coordinator.ts";
import { type EventStream, readEventStream, type StreamedEvent } from "../../support/event-stream.ts";
import {
  logEntry,
  machineState,
  numberEntries,
  outcomeEntry,
  phaseEntry,
  type ScriptedAgent,
} from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const ONE = createTinyPath("one");
const TWO = createTinyPath("two");

async function createServer(database: "memory" | "file" = "memory"): Promise<TestCoordinator> {
  const server = await createTestCoordinator({ database });
  await server.publishUnseen(ONE, TWO);
  return server;
}

function idOf(rollout: StartedRollout, agent = "nuc"): DeploymentId {
  const deployment = rollout.deployments.find((candidate) => String(candidate.agent) === agent);
  if (deployment === undefined) throw new Error(`the rollout has no deployment for ${agent}`);
  return deployment.id;
}

async function follow(server: TestCoordinator, path: string, lastEventId?: string | null): Promise<EventStream> {
  const headers: Record<string, string> =
    lastEventId === undefined || lastEventId === null ? {} : { "last-event-id": lastEventId };
  const answer = await server.fetch(`${path}/follow`, { headers });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("text/event-stream");
  return readEventStream(answer);
}

/** `nuc offered`, `nuc: line`, `nuc 5/10`, `end`. */
function summarize({ event }: StreamedEvent): string[] {
  switch (event.event) {
    case "deployment":
      return [`${event.data.agent} ${event.data.state}`];
    case "log":
      return event.data.lines.map(({ text }) => `${event.data.agent}: ${text}`);
    case "phase":
      return [`${event.data.agent} (${event.data.state})`];
    case "progress":
      return [`${event.data.agent} ${event.data.bytes}/${event.data.bytesTotal}`];
    case "end":
      return ["end"];
    default:
      return event satisfies never;
  }
}

const isState = (state: string) => (event: FollowEvent) => event.event === "deployment" && event.data.state === state;
const isLog = (event: FollowEvent) => event.event === "log";

async function runToItsEnd(agent: ScriptedAgent, id: DeploymentId): Promise<void> {
  await agent.report(id, numberEntries([phaseEntry("fetching"), logEntry("a"), logEntry("b")]));
  await agent.report(id, numberEntries([phaseEntry("activating"), logEntry("c"), outcomeEntry("succeeded")], 4));
}

describe("a follower sees", () => {
  test("every deployment as it is, then each change and all lines, then the end", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    await (await server.connectAgent("away")).disconnect();
    const rollout = await server.activate(ONE, "nuc", "away");
    const stream = await follow(server, `rollouts/${rollout.id}`);
    const first = [await stream.next(), await stream.next()].flatMap((event) =>
      event === null ? [] : summarize(event),
    );
    expect(first).toEqual(["away queued", "nuc offered"]);
    await nuc.report(idOf(rollout), numberEntries([phaseEntry("fetching"), logEntry("a")]));
    expect((await stream.until(isState("fetching"))).flatMap(summarize)).toEqual(["nuc: a", "nuc fetching"]);
    await nuc.report(idOf(rollout), numberEntries([logEntry("b"), outcomeEntry("rolled-back")], 3));
    expect((await stream.until(isState("rolled-back"))).flatMap(summarize)).toEqual(["nuc: b", "nuc rolled-back"]);
    const away = await server.activate(TWO, "away");
    expect((await stream.rest()).flatMap(summarize)).toEqual(["away superseded", "end"]);
    expect(away.deployments).toHaveLength(1);
  });

  test("what is over already, at once", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await runToItsEnd(nuc, idOf(rollout));
    const stream = await follow(server, `rollouts/${rollout.id}`);
    const lines = ["nuc: a", "nuc: b", "nuc: c"];
    const states = ["nuc (offered)", "nuc (fetching)", "nuc (activating)", "nuc succeeded"];
    expect((await stream.rest()).flatMap(summarize)).toEqual([...lines, ...states, "end"]);
  });

  test("one deployment of several, and its end alone", async () => {
    await using server = await createServer();
    const [nuc, tuc] = [await server.connectAgent("nuc"), await server.connectAgent("tuc")];
    const rollout = await server.activate(ONE, "nuc", "tuc");
    await tuc.report(idOf(rollout, "tuc"), numberEntries([logEntry("not for you")]));
    const stream = await follow(server, `deployments/${idOf(rollout)}`);
    await runToItsEnd(nuc, idOf(rollout));
    const words = (await stream.rest()).flatMap(summarize);
    expect(words.filter((word) => word.startsWith("tuc"))).toEqual([]);
    expect(words.filter((word) => !/^nuc \(?(?:offered|fetching|activating)/.test(word))).toEqual([
      "nuc: a",
      "nuc: b",
      "nuc: c",
      "nuc succeeded",
      "end",
    ]);
  });

  test("each state once and in its order, also those that ended before anybody looked", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    const stream = await follow(server, `rollouts/${rollout.id}`);
    expect((await stream.until(isState("offered"))).flatMap(summarize)).toEqual(["nuc offered"]);
    const all = ["fetching", "activating", "rebooting", "confirming"] as const;
    await nuc.report(
      idOf(rollout),
      numberEntries([...all.map((phase) => phaseEntry(phase)), outcomeEntry("succeeded")]),
    );
    const seen = await stream.rest();
    const states = all.map((phase) => `nuc (${phase})`);
    expect(seen.flatMap(summarize)).toEqual([...states, "nuc succeeded", "end"]);
    // Cut off anywhere in between, he goes on where he was.
    for (let count = 1; count < seen.length; count += 1) {
      const again = await follow(server, `rollouts/${rollout.id}`, seen[count - 1]?.id);
      const awaited = count < states.length ? seen.slice(count) : seen.slice(-2);
      expect((await again.rest()).flatMap(summarize)).toEqual(awaited.flatMap(summarize));
    }
  });

  test("progress, without a place in the order", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await nuc.report(idOf(rollout), numberEntries([phaseEntry("fetching")]));
    const stream = await follow(server, `rollouts/${rollout.id}`);
    await stream.until(isState("fetching"));
    await nuc.send({
      kind: "progress",
      deploymentId: idOf(rollout),
      paths: 1,
      pathsTotal: 2,
      bytes: 5,
      bytesTotal: 10,
    });
    expect(await stream.next()).toMatchObject({
      id: null,
      event: { event: "progress", data: { bytes: 5, pathsTotal: 2 } },
    });
    await nuc.report(idOf(rollout), numberEntries([outcomeEntry("succeeded")], 2));
    expect((await stream.rest()).flatMap(summarize)).toEqual(["nuc succeeded", "end"]);
    expect(server.coordinator.services.registry.progress.size).toBe(0);
  });

  test("nothing of a progress that nobody may send", async () => {
    await using server = await createServer();
    await server.connectAgent("nuc");
    const other = await server.connectAgent("tuc");
    const rollout = await server.activate(ONE, "nuc");
    await other.send({
      kind: "progress",
      deploymentId: idOf(rollout),
      paths: 1,
      pathsTotal: 2,
      bytes: 5,
      bytesTotal: 10,
    });
    expect(server.coordinator.services.registry.progress.size).toBe(0);
  });
});

describe("progress is forgotten", () => {
  test("when its agent comes back without it, and another takes its place", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await nuc.report(idOf(rollout), numberEntries([phaseEntry("fetching")]));
    await nuc.send({
      kind: "progress",
      deploymentId: idOf(rollout),
      paths: 1,
      pathsTotal: 2,
      bytes: 5,
      bytesTotal: 10,
    });
    expect(server.coordinator.services.registry.progress.size).toBe(1);
    await nuc.disconnect();
    await server.activate(TWO, "nuc");
    await server.connectAgent(nuc.identity);
    expect(server.coordinator.services.registry.progress.size).toBe(0);
  });
});

describe("contact", () => {
  const contactOf = (event: StreamedEvent | null) =>
    event?.event.event === "deployment" ? `${event.event.data.state} ${event.event.data.contact}` : null;

  test("turns offline 90 s after the agent was last seen, and the follower is told then", async () => {
    await using server = await createServer();
    await (await server.connectAgent("nuc")).disconnect();
    await server.clock.advance(10_000);
    const stream = await follow(server, `rollouts/${(await server.activate(ONE, "nuc")).id}`);
    expect(contactOf(await stream.next())).toBe("queued unknown");
    const next = stream.next();
    await server.clock.advance(79_999);
    const early = await Promise.race([next, Promise.resolve("nothing yet")]);
    expect(early).toBe("nothing yet");
    await server.clock.advance(2);
    expect(contactOf(await next)).toBe("queued offline");
    await stream.close();
  });

  test("is back when the agent is", async () => {
    await using server = await createServer();
    const away = await server.connectAgent("nuc");
    await away.disconnect();
    await server.clock.advance(100_000);
    const rollout = await server.activate(ONE, "nuc");
    const stream = await follow(server, `rollouts/${rollout.id}`);
    expect(contactOf(await stream.next())).toBe("queued offline");
    const nuc = await server.connectAgent(away.identity);
    expect(contactOf(await stream.next())).toBe("offered online");
    await nuc.disconnect();
    expect(contactOf(await stream.next())).toBe("offered unknown");
    await stream.close();
  });
});

describe("after a cut", () => {
  /** Follows with a cut after every event, and says what came in all. */
  async function followInPieces(server: TestCoordinator, path: string): Promise<string[]> {
    const words: string[] = [];
    for (let lastId: string | null = null; ; ) {
      const stream: EventStream = await follow(server, path, lastId);
      const events = await stream.until((event) => event.event === "log" || event.event === "end");
      await stream.close();
      words.push(...events.flatMap(summarize).filter((word) => word.includes(":") || word === "end"));
      lastId = events.at(-1)?.id ?? null;
      if (words.at(-1) === "end") return words;
    }
  }

  test("no line comes twice and none is missing, wherever it is cut", async () => {
    await using server = await createServer();
    const [nuc, tuc] = [await server.connectAgent("nuc"), await server.connectAgent("tuc")];
    const rollout = await server.activate(ONE, "nuc", "tuc");
    for (let n = 1; n <= 6; n += 2) {
      await nuc.report(idOf(rollout), numberEntries([logEntry(`n${n}`), logEntry(`n${n + 1}`)], n));
      await tuc.report(idOf(rollout, "tuc"), numberEntries([logEntry(`t${n}`), logEntry(`t${n + 1}`)], n));
    }
    await nuc.report(idOf(rollout), numberEntries([outcomeEntry("succeeded")], 7));
    await tuc.report(idOf(rollout, "tuc"), numberEntries([outcomeEntry("failed")], 7));
    const words = await followInPieces(server, `rollouts/${rollout.id}`);
    const expected = [1, 3, 5].flatMap((n) => [`nuc: n${n}`, `nuc: n${n + 1}`, `tuc: t${n}`, `tuc: t${n + 1}`]);
    expect(words).toEqual([...expected, "end"]);
  });

  test("no state of any of several is missing, wherever it is cut", async () => {
    await using server = await createServer();
    const agents = [await server.connectAgent("nuc"), await server.connectAgent("tuc")];
    const rollout = await server.activate(ONE, "nuc", "tuc");
    const phases = ["fetching", "activating", "confirming"] as const;
    for (const [index, phase] of phases.entries()) {
      for (const agent of agents) {
        const entries = numberEntries([logEntry(phase), phaseEntry(phase)], 2 * index + 1);
        await agent.report(idOf(rollout, agent.identity.name), entries);
      }
    }
    const readAll = async (lastId: string | null) => {
      const stream = await follow(server, `rollouts/${rollout.id}`, lastId);
      // As they are now, which is told at each beginning.
      let awaited = agents.length;
      const events = await stream.until((event) => isState("confirming")(event) && --awaited === 0);
      await stream.close();
      return events;
    };
    const passedIn = (events: readonly StreamedEvent[]) => events.filter(({ event }) => event.event === "phase");
    const whole = await readAll(null);
    expect(passedIn(whole).flatMap(summarize)).toHaveLength(2 * ["offered", ...phases].length - 2);
    for (const [index, { id }] of whole.entries()) {
      expect(passedIn(await readAll(id))).toEqual(passedIn(whole.slice(index + 1)));
    }
  });

  test("what changed in between is told, across a restart too", async () => {
    await using server = await createServer("file");
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await nuc.report(idOf(rollout), numberEntries([phaseEntry("fetching"), logEntry("a")]));
    const before = await follow(server, `rollouts/${rollout.id}`);
    const seen = await before.until(isState("fetching"));
    await before.close();
    await server.restart();
    const again = await server.connectAgent(nuc.identity, { state: machineState(idOf(rollout)) });
    await again.report(idOf(rollout), numberEntries([logEntry("b"), outcomeEntry("degraded")], 3));
    const after = await follow(server, `rollouts/${rollout.id}`, seen.at(-1)?.id);
    expect((await after.rest()).flatMap(summarize)).toEqual(["nuc: b", "nuc degraded", "end"]);
  });

  test("an id that is none begins at the beginning", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await runToItsEnd(nuc, idOf(rollout));
    for (const id of ["", "x", "1", "-1.5", "99999999999999999.0"]) {
      const stream = await follow(server, `rollouts/${rollout.id}`, id);
      expect((await stream.rest()).flatMap(summarize)).toContain("nuc: a");
    }
  });
});

describe("an id of a future that a restored backup does not know", () => {
  test("does not keep from the follower what happens now, nor what it may have missed", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    await nuc.report(idOf(rollout), numberEntries([phaseEntry("fetching"), logEntry("a")]));
    const stream = await follow(server, `rollouts/${rollout.id}`, "7000.7000");
    const known = await stream.until(isState("fetching"));
    expect(known.flatMap(summarize)).toEqual(["nuc: a", "nuc (offered)", "nuc fetching"]);
    await nuc.report(idOf(rollout), numberEntries([logEntry("b"), outcomeEntry("succeeded")], 3));
    expect((await stream.rest()).flatMap(summarize)).toEqual(["nuc: b", "nuc succeeded", "end"]);
  });
});

describe("a follower that hangs up", () => {
  test("leaves nothing behind", async () => {
    await using server = await createServer();
    await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    const streams = [1, 2, 3].map(() => follow(server, `rollouts/${rollout.id}`));
    const sleepersBefore = server.clock.sleepers;
    for (const stream of await Promise.all(streams)) {
      await stream.next();
      const pending = stream.next();
      await server.clock.advance(1);
      expect(server.clock.sleepers).toBe(sleepersBefore + 1);
      await stream.close();
      expect(await pending).toBeNull();
    }
    expect(server.clock.sleepers).toBe(sleepersBefore);
  });

  test("while lines pour in, many at once, loses nothing the next time", async () => {
    await using server = await createServer();
    const nuc = await server.connectAgent("nuc");
    const rollout = await server.activate(ONE, "nuc");
    const stream = await follow(server, `rollouts/${rollout.id}`);
    const words: string[] = [];
    for (let n = 1; n <= 300; n += 1) await nuc.report(idOf(rollout), numberEntries([logEntry(`${n}`)], n));
    const some = await stream.until(isLog);
    await stream.close();
    await nuc.report(idOf(rollout), numberEntries([outcomeEntry("succeeded")], 301));
    const rest = await follow(server, `rollouts/${rollout.id}`, some.at(-1)?.id);
    words.push(...[...some, ...(await rest.rest())].flatMap(summarize).filter((word) => word.includes(":")));
    expect(words).toEqual(Array.from({ length: 300 }, (_, index) => `nuc: ${index + 1}`));
  });
});
