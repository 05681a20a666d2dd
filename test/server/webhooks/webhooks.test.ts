/** Webhooks to a real web server: everything arrives, in order, signed, whoever is away or killed in between. */
import { describe, expect, test } from "bun:test";
import { sql } from "kysely";
import { problemSchema } from "../../../src/api/problem.ts";
import {
  savedWebhookSchema,
  type WebhookDeliveryDto,
  webhookDeliveryListSchema,
  webhookDeliverySchema,
  webhookSchema,
} from "../../../src/api/webhooks.ts";
import { DELIVERIES_KEPT, insertDelivery } from "../../../src/server/database/webhooks.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";
import { openWebhookReceiver, type WebhookReceiver } from "../../support/webhook-receiver.ts";

const ONE = createTinyPath("one");
const HOUR_MS = 3_600_000;
const STEP_MS = 100;

type World = AsyncDisposable & {
  readonly server: TestCoordinator;
  readonly receiver: WebhookReceiver;
  /** As it was told last. */
  readonly secret: () => string;
  /** The one by which the receiver verifies from now on. */
  expectSecret(secret: string): void;
  set(json?: object, workspace?: string): Promise<void>;
  /** Moves the clock, to the next try if there is one, until it is so. */
  until(what: string, check: () => boolean | Promise<boolean>): Promise<void>;
  deliveries(workspace?: string): Promise<readonly WebhookDeliveryDto[]>;
  /** Whether the newest delivery was tried, once or more often. */
  isTried(): Promise<boolean>;
};

async function createWorld(database: "memory" | "file" = "memory"): Promise<World> {
  const server = await createTestCoordinator({ database });
  let secret = "";
  let verifiedBy: string | null = null;
  const receiver = openWebhookReceiver(() => verifiedBy ?? secret);
  const deliveries = async (workspace = "default") => {
    const answer = await expectOk(await server.fetch(`webhook-deliveries?workspace=${workspace}`));
    return webhookDeliveryListSchema.parse(await answer.json()).deliveries;
  };
  return {
    server,
    receiver,
    secret: () => secret,
    expectSecret: (wanted) => {
      verifiedBy = wanted;
    },
    async set(json = {}, workspace = "default") {
      const request = { method: "PUT", json: { url: receiver.url, ...json } };
      const answer = await expectOk(await server.fetch(`webhook?workspace=${workspace}`, request));
      secret = savedWebhookSchema.parse(await answer.json()).secret ?? secret;
    },
    until: async (what, check) => {
      let tryingMs = 0;
      const look = async () => {
        // While somebody is being asked the clock stands still, or his time would be up.
        const waitMs = await nextTryMs(server);
        tryingMs = waitMs === 0 ? tryingMs + STEP_MS : 0;
        await server.clock.advance(waitMs === 0 ? (tryingMs <= 5 * STEP_MS ? STEP_MS : 5) : waitMs);
        return await check();
      };
      await waitFor(what, look, { intervalMs: 2, timeoutMs: 30_000 });
    },
    deliveries,
    isTried: async () => ((await deliveries())[0]?.attempts ?? 0) > 0,
    async [Symbol.asyncDispose]() {
      // The receiver first: the coordinator is not to wait for what it holds back.
      await receiver[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Until a delivery is tried again; 0: one is on its way or about to be. */
async function nextTryMs({ coordinator, clock }: TestCoordinator): Promise<number> {
  const { rows } = await sql<{ next_attempt_ms: number }>`select next_attempt_ms from webhooks w
    where failing_since_ms is not null or exists
      (select 1 from webhook_deliveries d where d.workspace_id = w.workspace_id and state = 'pending')`.execute(
    coordinator.services.database,
  );
  const waits = rows.map(({ next_attempt_ms }) => Math.max(0, next_attempt_ms - clock.nowMs()));
  return waits.length === 0 ? STEP_MS : Math.min(...waits);
}

async function deploy({ server, until }: World, name: string): Promise<void> {
  const agent = await server.connectAgent(name);
  const { database } = server.coordinator.services;
  const online = database.selectFrom("agents").select("id").where("announced_online", "=", 1);
  await until("the agent to be announced", async () => (await online.execute()).length > 0);
  await server.publishUnseen(ONE);
  const [deployment] = (await server.activate(ONE, name)).deployments;
  if (deployment === undefined) throw new Error("there is no deployment");
  await agent.report(
    deployment.id,
    numberEntries([phaseEntry("fetching"), outcomeEntry("failed", "The disk is full.")]),
  );
}

/** Happens in a workspace, so often. */
async function happen({ server }: World, times: number, workspace = "default"): Promise<void> {
  const { database, bus } = server.coordinator.services;
  const at = server.clock.nowMs();
  for (let index = 0; index < times; index += 1) {
    await sql`insert into events (at_ms, workspace_id, kind, data)
      select ${at}, id, 'agent', '{}' from workspaces where name = ${workspace}`.execute(database);
  }
  bus.publish("something");
}

/** What changed, by what was delivered. */
const changes = (receiver: WebhookReceiver) =>
  receiver.received.flatMap(({ payload }) =>
    payload.data.events.map(({ kind, data }) => [kind, data["change"] ?? data["state"]].filter(Boolean).join(" ")),
  );

/** Of all changes of a workspace that are there. */
async function allIds({ server }: World): Promise<readonly number[]> {
  const { database } = server.coordinator.services;
  return (await database.selectFrom("events").select("id").orderBy("id").execute()).map(({ id }) => id);
}

const lastOf = (receiver: WebhookReceiver) => receiver.received.at(-1)?.payload.data.events.at(-1)?.data["state"];

describe("a webhook", () => {
  test("gets everything that happens from then on, in order, signed", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await happen(world, 2);
    await world.set();
    await deploy(world, "nuc");
    await world.until("the end", () => lastOf(receiver) === "failed");
    await world.until("rest", async () => (await world.deliveries())[0]?.state === "delivered");
    expect(changes(receiver)).toEqual([
      ...["agent registered", "agent online", "rollout", "deployment queued", "deployment offered"],
      ...["deployment fetching", "deployment failed"],
    ]);
    expect(receiver.eventIds()).toEqual((await allIds(world)).slice(2));
    const [first] = receiver.received;
    expect(first).toMatchObject({
      ...{ isGenuine: true, path: "/hook", contentType: "application/json", authorization: null },
      payload: { type: "nixdeploy.events", data: { workspace: "default" } },
    });
    expect(first?.userAgent).toBe("test");
    expect(Math.abs((first?.timestamp ?? 0) - server.clock.nowMs() / 1000)).toBeLessThan(10);
    expect(receiver.received.at(-1)?.payload.data.events.at(-1)).toMatchObject({
      ...{ kind: "deployment", agent: "nuc", storePath: ONE.storePath },
      data: { state: "failed", reason: "The disk is full." },
    });
    const log = await world.deliveries();
    expect(log.map(({ id }) => id).reverse()).toEqual(receiver.received.map(({ id }) => id));
    expect(log[0]).toMatchObject({ state: "delivered", attempts: 1, status: 204, error: null });
  });

  test("gets what it asked for only", async () => {
    await using world = await createWorld();
    await world.set({ events: ["outcome", "rollout"] });
    await deploy(world, "nuc");
    await world.until("the end", () => lastOf(world.receiver) === "failed");
    expect(changes(world.receiver)).toEqual(["rollout", "deployment failed"]);
  });

  test("gets many changes in few deliveries", async () => {
    await using world = await createWorld();
    const { receiver } = world;
    await world.set({ events: ["agent"] });
    await happen(world, 260);
    await world.until("all of them", () => receiver.eventIds().length === 260);
    expect(receiver.eventIds()).toEqual(await allIds(world));
    expect(receiver.received.length).toBeLessThan(10);
  });

  test("that was away gets everything afterwards, in order, under the same id", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set();
    receiver.answer = () => new Response("not today", { status: 503 });
    await server.connectAgent("nuc");
    await world.until("some tries", () => receiver.received.length >= 4);
    await server.connectAgent("tuc");
    await world.until("one more", () => receiver.received.length >= 5);
    const [pending, ...others] = await world.deliveries();
    expect(others).toEqual([]);
    expect(pending).toMatchObject({ state: "pending", status: 503, error: "it answered 503" });
    expect(new Set(receiver.received.map(({ id }) => id))).toEqual(new Set([pending?.id ?? ""]));
    const shown = webhookSchema.parse(await (await server.fetch("webhook")).json());
    expect(shown.failingSince).not.toBeNull();
    expect(Date.parse(shown.nextAttemptAt ?? "")).toBeLessThanOrEqual(server.clock.nowMs() + HOUR_MS);
    const failedTries = receiver.received.length;
    receiver.answer = () => new Response(null, { status: 200 });
    await world.until("all of it", async () => receiver.eventIds().at(-1) === (await allIds(world)).at(-1));
    const taken = receiver.received.slice(failedTries);
    expect(taken[0]?.id).toBe(pending?.id ?? "");
    expect(taken.flatMap(({ payload }) => payload.data.events.map(({ id }) => id))).toEqual([...(await allIds(world))]);
    expect(receiver.received.every(({ isGenuine }) => isGenuine)).toBe(true);
    expect(webhookSchema.parse(await (await server.fetch("webhook")).json()).failingSince).toBeNull();
    const said = server.logged.filter(({ message }) => message.startsWith("webhook ")).map(({ message }) => message);
    expect(said).toEqual(["webhook set", "webhook does not get through", "webhook gets through again"]);
  });

  test.each([
    [
      "a redirect",
      () => Response.redirect("http://elsewhere.example/x?secret=1", 302),
      "it answered 302, a redirect to http://elsewhere.example, which is not followed",
    ],
    ["a refusal", () => new Response("no", { status: 410 }), "it answered 410"],
  ])("%s is no success", async (_what, answer, error) => {
    await using world = await createWorld();
    world.receiver.answer = answer;
    await world.set();
    await world.server.connectAgent("nuc");
    await world.until("the first try", () => world.isTried());
    expect((await world.deliveries())[0]).toMatchObject({ state: "pending", error });
  });

  test("that never answers is given up after 15 s, and holds up nobody else", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await expectOk(await server.fetch("workspaces", { json: { name: "other" } }));
    const gate = Promise.withResolvers<Response>();
    receiver.answer = ({ path }) => (path.includes("slow") ? gate.promise : new Response());
    await world.set({ url: `${receiver.url}?slow` });
    const slowSecret = world.secret();
    await world.set({ secret: slowSecret }, "other");
    await server.connectAgent("nuc");
    await world.until("the slow one", () => receiver.received.length === 1);
    await happen(world, 1, "other");
    await world.until("the other one", async () => (await world.deliveries("other"))[0]?.state === "delivered");
    await server.clock.advance(15_000);
    await world.until("the end of it", () => world.isTried());
    expect((await world.deliveries())[0]).toMatchObject({
      state: "pending",
      status: null,
      error: expect.stringContaining("nothing came for 15 s"),
    });
    gate.resolve(new Response());
  });

  test("gives up after 24 h, and says so; what happened since goes on", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set();
    receiver.answer = () => new Response(null, { status: 500 });
    await happen(world, 2);
    await world.until("the first try", () => receiver.received.length > 0);
    // Much of what waits behind it is as old.
    await happen(world, 150);
    const lost = await allIds(world);
    await world.until(
      "the end",
      async () => (await world.deliveries()).filter(({ state }) => state === "given-up").length === 3,
    );
    const givenUp = (await world.deliveries()).filter(({ state }) => state === "given-up");
    expect(givenUp.flatMap(({ events }) => events).sort((a, b) => a - b)).toEqual([...lost]);
    expect(givenUp.at(-1)).toMatchObject({ status: 500, error: "it answered 500" });
    expect(givenUp[0]).toMatchObject({ attempts: 0, error: "the receiver had taken nothing for 24 h" });
    const said = server.logged.filter(({ message }) => message === "webhook delivery given up after 24 h");
    expect(said.map(({ fields }) => fields["events"])).toEqual([2, 100, 50]);
    const metrics = await (await server.fetch("/metrics")).text();
    expect(metrics).toContain("nixdeploy_webhook_events_given_up_total 152");
    expect(metrics).toContain("nixdeploy_webhooks_failing 1");
    expect(metrics).toMatch(/nixdeploy_webhook_attempts_total\{result="failed"\} \d\d/);
    receiver.answer = () => new Response();
    const before = receiver.received.length;
    await happen(world, 1);
    const isDelivered = async () => (await world.deliveries())[0]?.state === "delivered";
    await world.until("what is new", isDelivered);
    expect(receiver.received.slice(before).flatMap(({ payload }) => payload.data.events)).toHaveLength(1);
    expect(receiver.eventIds().at(-1)).toBe((await allIds(world)).at(-1) ?? 0);
    expect(await (await server.fetch("/metrics")).text()).toContain("nixdeploy_webhooks_failing 0");
  });

  test("a coordinator that is killed while it delivers does so again, under the same id, and loses nothing", async () => {
    await using world = await createWorld("file");
    const { server, receiver } = world;
    await world.set();
    const gate = Promise.withResolvers<Response>();
    receiver.answer = () => gate.promise;
    await server.connectAgent("nuc");
    await world.until("the delivery", () => receiver.received.length === 1);
    await server.restart();
    receiver.answer = () => new Response();
    await server.connectAgent("tuc");
    await world.until("all of it", async () => receiver.eventIds().at(-1) === (await allIds(world)).at(-1));
    const ids = receiver.received.map(({ id }) => id);
    expect(ids[1]).toBe(ids[0] ?? "");
    expect([...new Set(receiver.eventIds())]).toEqual([...(await allIds(world))]);
    gate.resolve(new Response());
  });
});

describe("setting it", () => {
  test("another address gets what waited, by the same secret, which is never shown again", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set({ url: "http://127.0.0.1:9/wrong?key=hidden", events: ["agent"] });
    const secret = world.secret();
    await server.connectAgent("nuc");
    await world.until("the first try", () => world.isTried());
    expect((await world.deliveries())[0]?.error).toContain("cannot reach http://127.0.0.1:9");
    await world.set({ events: null });
    expect(world.secret()).toBe(secret);
    await world.until("all of it", async () => receiver.eventIds().length === (await allIds(world)).length);
    expect(receiver.received.every(({ isGenuine }) => isGenuine)).toBe(true);
    const shown = await (await server.fetch("webhook")).text();
    expect(webhookSchema.parse(JSON.parse(shown))).toMatchObject({ url: receiver.url, events: null });
    const audit = await (await server.fetch("audit")).text();
    const told = [shown, audit, JSON.stringify(server.logged), JSON.stringify(await world.deliveries())].join("\n");
    expect(told).not.toContain(secret.slice("whsec_".length, -1));
    expect(told).not.toContain("hidden");
    expect(audit).toContain("sends agent to http://127.0.0.1:9, with another secret");
  });

  test("leaves as it is what is not said: its kinds, when it gets another secret or another address", async () => {
    await using world = await createWorld();
    const kinds = async () => webhookSchema.parse(await (await world.server.fetch("webhook")).json()).events;
    await world.set({ events: ["outcome"] });
    await world.set({ newSecret: true });
    expect(await kinds()).toEqual(["outcome"]);
    await world.set({ url: `${world.receiver.url}?another` });
    expect(await kinds()).toEqual(["outcome"]);
    await world.set({ events: null });
    expect(await kinds()).toBeNull();
  });

  test("a secret of one's own, or another one", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    const own = `whsec_${Buffer.alloc(32, 9).toString("base64")}`;
    const put = async (json: object) =>
      await server.fetch("webhook", { method: "PUT", json: { url: receiver.url, ...json } });
    const saved = savedWebhookSchema.parse(await (await put({ secret: own.slice(6) })).json());
    expect(saved.secret).toBeNull();
    await world.set({ newSecret: true });
    expect(world.secret()).toStartWith("whsec_");
    expect(world.secret()).not.toBe(own);
    await expectOk(await server.fetch("webhook-tests", { method: "POST" }));
    expect(receiver.received[0]?.isGenuine).toBe(true);
    expect((await put({ newSecret: true, secret: own })).status).toBe(400);
  });

  test("that has another address by the time a try at the old one fails is not called failing for that", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set();
    const gate = Promise.withResolvers<Response>();
    receiver.answer = async () => await gate.promise;
    await happen(world, 1);
    await world.until("the try", () => receiver.received.length === 1);
    await world.set({ url: `${receiver.url}?moved` });
    receiver.answer = () => new Response();
    gate.resolve(new Response(null, { status: 500 }));
    await waitFor("the end of the try", () => world.isTried());
    expect(webhookSchema.parse(await (await server.fetch("webhook")).json()).failingSince).toBeNull();
    await world.until("the delivery", async () => (await world.deliveries())[0]?.state === "delivered");
    expect(receiver.received.map(({ path }) => path)).toEqual(["/hook", "/hook?moved"]);
    expect(JSON.stringify(server.logged)).not.toContain("does not get through");
  });

  describe("another secret", () => {
    /** Whether what comes is signed by one of these. */
    async function isSignedBy(world: World, ...secrets: readonly string[]): Promise<readonly boolean[]> {
      const found: boolean[] = [];
      for (const secret of secrets) {
        world.expectSecret(secret);
        await expectOk(await world.server.fetch("webhook-tests", { method: "POST" }));
        found.push(world.receiver.received.at(-1)?.isGenuine === true);
      }
      return found;
    }
    const untilOf = async ({ server }: World) =>
      webhookSchema.parse(await (await server.fetch("webhook")).json()).oldSecretUntil;
    const storedOf = async ({ server }: World) =>
      await server.coordinator.services.database.selectFrom("webhooks").select("old_secret").executeTakeFirstOrThrow();

    test("the one before signs, too, for 24 h, and is then forgotten", async () => {
      await using world = await createWorld();
      await world.set();
      const first = world.secret();
      await world.set({ newSecret: true });
      const second = world.secret();
      expect(await untilOf(world)).toBe(new Date(world.server.clock.nowMs() + 24 * HOUR_MS).toISOString());
      expect(await isSignedBy(world, first, second)).toEqual([true, true]);
      await world.set({ events: ["outcome"] });
      await world.server.clock.advance(23 * HOUR_MS);
      expect(await isSignedBy(world, first, second)).toEqual([true, true]);
      await world.server.clock.advance(HOUR_MS);
      expect(await untilOf(world)).toBeNull();
      expect(await isSignedBy(world, first, second)).toEqual([false, true]);
      await happen(world, 1);
      await world.until("it to be forgotten", async () => (await storedOf(world)).old_secret === null);
    });

    test("for as long as is said, and only the last one", async () => {
      await using world = await createWorld();
      await world.set();
      const first = world.secret();
      await world.set({ newSecret: true, oldSecretForMs: 0 });
      const second = world.secret();
      expect(await isSignedBy(world, first, second)).toEqual([false, true]);
      await world.set({ newSecret: true, oldSecretForMs: 2 * HOUR_MS });
      const third = world.secret();
      await world.set({ newSecret: true, oldSecretForMs: 2 * HOUR_MS });
      const fourth = world.secret();
      expect(await isSignedBy(world, second, third, fourth)).toEqual([false, true, true]);
      await world.set({ oldSecretForMs: 4 * HOUR_MS });
      await world.server.clock.advance(3 * HOUR_MS);
      expect(await isSignedBy(world, third, fourth)).toEqual([true, true]);
      await world.set({ oldSecretForMs: 0 });
      expect(await isSignedBy(world, third, fourth)).toEqual([false, true]);
      expect(await storedOf(world)).toEqual({ old_secret: null });
    });

    test("neither is ever told again, nor logged", async () => {
      await using world = await createWorld();
      await world.set();
      const first = world.secret();
      await world.set({ newSecret: true });
      const told = [
        await (await world.server.fetch("webhook")).text(),
        await (await world.server.fetch("audit")).text(),
      ];
      for (const secret of [first, world.secret()]) {
        const hidden = secret.slice("whsec_".length, -1);
        expect([...told, JSON.stringify(world.server.logged)].join("\n")).not.toContain(hidden);
      }
      expect(told[1]).toContain("with another secret, the one before until 20");
    });
  });

  test.each([
    ["no address", { url: "hooks" }],
    ["another scheme", { url: "ftp://hooks.example" }],
    ["a password", { url: "https://me:secret@hooks.example" }],
    ["a fragment", { url: "https://hooks.example/#x" }],
    ["too long", { url: `https://hooks.example/${"x".repeat(2_000)}` }],
    ["no kinds", { url: "https://hooks.example", events: [] }],
    ["a kind that is none", { url: "https://hooks.example", events: ["nothing"] }],
    ["the old secret for ever", { url: "https://hooks.example", oldSecretForMs: 31 * 24 * HOUR_MS }],
    ["a secret that is none", { url: "https://hooks.example", secret: "short" }],
  ])("refused: %s", async (_what, json) => {
    await using world = await createWorld();
    const answer = await world.server.fetch("webhook", { method: "PUT", json });
    expect(answer.status).toBe(400);
    expect(JSON.stringify(problemSchema.parse(await answer.json()))).not.toContain("secret@");
    expect((await world.server.fetch("webhook")).status).toBe(404);
  });

  test("removed, or its workspace deleted, nothing is sent any more and nothing is left", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await expectOk(await server.fetch("workspaces", { json: { name: "brief" } }));
    await world.set({}, "brief");
    await expectOk(await server.fetch("webhook-tests?workspace=brief", { method: "POST" }));
    await world.set();
    await expectOk(await server.fetch("webhook", { method: "DELETE" }));
    expect((await server.fetch("webhook", { method: "DELETE" })).status).toBe(404);
    await expectOk(await server.fetch("workspaces/brief", { method: "DELETE" }));
    await server.connectAgent("nuc");
    const { database } = server.coordinator.services;
    await world.until(
      "it to be gone",
      async () => (await database.selectFrom("webhooks").select("url").execute()).length === 0,
    );
    await world.until(
      "the log too",
      async () => (await database.selectFrom("webhook_deliveries").select("id").execute()).length === 0,
    );
    expect(receiver.received).toHaveLength(1);
  });
});

describe("by hand", () => {
  test("a test says what came of it, and is in the log", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set();
    const tryOut = async () =>
      webhookDeliverySchema.parse(
        await (await expectOk(await server.fetch("webhook-tests", { method: "POST" }))).json(),
      );
    expect(await tryOut()).toMatchObject({ kind: "test", state: "delivered", status: 204, events: [] });
    expect(receiver.received[0]).toMatchObject({
      isGenuine: true,
      payload: { type: "nixdeploy.test", data: { events: [] } },
    });
    receiver.answer = () => new Response(null, { status: 404 });
    expect(await tryOut()).toMatchObject({ state: "given-up", error: "it answered 404" });
    expect((await world.deliveries()).map(({ state }) => state)).toEqual(["given-up", "delivered"]);
    // It says nothing about what is sent by itself.
    expect(webhookSchema.parse(await (await server.fetch("webhook")).json()).failingSince).toBeNull();
  });

  test("a delivery is sent again under its id; one that waits is due at once", async () => {
    await using world = await createWorld();
    const { server, receiver } = world;
    await world.set();
    const again = async (id: string) => await server.fetch(`webhook-deliveries/${id}/redelivery`, { method: "POST" });
    await server.connectAgent("nuc");
    await world.until("it", async () => (await world.deliveries()).at(-1)?.state === "delivered");
    const first = (await world.deliveries()).at(-1)?.id ?? "";
    expect(webhookDeliverySchema.parse(await (await again(first)).json())).toMatchObject({ id: first, attempts: 2 });
    const [sent, resent] = receiver.received.filter(({ id }) => id === first);
    expect(resent?.payload).toEqual(sent?.payload ?? ({} as never));
    expect((await again("0123456789abcdfg")).status).toBe(404);
    await world.until("rest", async () => (await world.deliveries()).every(({ state }) => state === "delivered"));

    receiver.answer = () => new Response(null, { status: 500 });
    await server.connectAgent("tuc");
    await world.until("it to fail", async () => ((await world.deliveries())[0]?.attempts ?? 0) >= 6);
    receiver.answer = () => new Response();
    const waiting = (await world.deliveries())[0]?.id ?? "";
    expect(webhookDeliverySchema.parse(await (await again(waiting)).json())).toMatchObject({ state: "pending" });
    await world.until(
      "it to arrive",
      async () => (await world.deliveries()).find(({ id }) => id === waiting)?.state === "delivered",
    );
  });

  test("the log of deliveries has the latest 200, in pages", async () => {
    await using world = await createWorld();
    const { server } = world;
    await world.set();
    const { database } = server.coordinator.services;
    const workspace = await database.selectFrom("workspaces").select("id").executeTakeFirstOrThrow();
    for (let index = 0; index < DELIVERIES_KEPT + 30; index += 1) {
      await insertDelivery(database, {
        ...{
          id: String(index),
          workspace_id: workspace.id,
          kind: "test",
          event_ids: "[]",
          newest_ms: 1,
          created_ms: 1,
        },
        ...{ state: index === 0 ? "pending" : "given-up", finished_ms: null, attempts: 0 },
        ...{ attempted_ms: null, status: null, duration_ms: null, error: null },
      });
    }
    const ids: string[] = [];
    for (let after: string | null = ""; after !== null; ) {
      const query: string = after === "" ? "" : `&after=${after}`;
      const page = webhookDeliveryListSchema.parse(
        await (await server.fetch(`webhook-deliveries?limit=70${query}`)).json(),
      );
      ids.push(...page.deliveries.map(({ id }) => id));
      after = page.next;
    }
    const kept = Array.from({ length: DELIVERIES_KEPT }, (_, index) => String(DELIVERIES_KEPT + 29 - index));
    expect(ids).toEqual([...kept, "0"]);
  });
});
