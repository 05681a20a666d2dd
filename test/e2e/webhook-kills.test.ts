/**
 * kill -9 of the compiled coordinator while a delivery is at its receiver, again and again, while agents deploy: whoever
 * leaves out what he has seen has every change, in order, and nothing was made up.
 */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { z } from "zod";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { savedWebhookSchema } from "../../src/api/webhooks.ts";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { startCoordinator } from "../support/fleet.ts";
import { createJournalingAgent } from "../support/journaling-agent.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";
import { openWebhookReceiver, type Received } from "../support/webhook-receiver.ts";

const KILLS = 3;
const AGENTS = ["one", "two", "three"];
const PATH = createTinyPath("system");

test("killed while it delivers, the coordinator delivers everything", async () => {
  await using directory = await createTemporaryDirectory("webhook-kills");
  const coordinator = await startCoordinator(directory.join("coordinator"), {});
  const adminToken = (await Bun.file(directory.join("coordinator", "admin-token")).text()).trim();
  const headers = { authorization: `Bearer ${adminToken}`, "content-type": "application/json" };
  const api = async <Schema extends z.ZodType>(schema: Schema, path: string, json: object, method = "POST") => {
    const answer = await fetch(`${coordinator.url}/api/v1/${path}`, { method, headers, body: JSON.stringify(json) });
    return schema.parse(await answer.json());
  };
  let secret = "";
  await using receiver = openWebhookReceiver(() => secret);
  ({ secret = "" } = z
    .object({ secret: z.string() })
    .parse(await api(savedWebhookSchema, "webhook", { url: receiver.url }, "PUT")));
  const query = `upload=0123456789abcdfg&offset=0&narSize=${PATH.nar.length}&fileHash=${formatHashNix32(PATH.fileHash)}`;
  const nar = `${coordinator.url}/api/v1/caches/default/nars/${formatHashNix32(PATH.narHash)}?${query}`;
  expect((await fetch(nar, { method: "PUT", headers, body: new Uint8Array(PATH.file) })).status).toBe(200);
  await api(z.object({ published: z.number() }), "caches/default/paths", { paths: [PATH.published] });
  const { token } = await api(createdTokenSchema, "tokens", { kind: "agent" });
  const agents = AGENTS.map((name) => createJournalingAgent({ name, url: coordinator.url, token }));
  await waitFor("the agents", () => agents.every((agent) => agent.isConnected));

  for (let kill = 0; kill < KILLS; kill += 1) {
    const held = Promise.withResolvers<Received>();
    const dead = Promise.withResolvers<void>();
    receiver.answer = async (one) => {
      held.resolve(one);
      await dead.promise;
      return new Response();
    };
    await api(rolloutSchema, "rollouts", {
      agents: Object.fromEntries(AGENTS.map((name) => [name, PATH.storePath])),
      mode: "switch",
    });
    const { id } = await held.promise;
    await coordinator.killHard();
    receiver.answer = () => new Response();
    dead.resolve();
    await coordinator.restart();
    await waitFor("the same delivery again", () => receiver.received.filter((one) => one.id === id).length >= 2);
    await waitFor("the agents", () => agents.every((agent) => agent.isConnected));
  }
  const isAtWork = () =>
    agents.some((agent) => agent.journals().some(({ entries }) => entries.at(-1)?.type !== "outcome"));
  await waitFor("the ends", () => !isAtWork(), { timeoutMs: 30_000 });
  const stored = () => {
    using database = new Database(directory.join("coordinator", "coordinator.db"), { readonly: true });
    return z.array(z.object({ id: z.number() })).parse(database.query("select id from events order by id").all());
  };
  const ids = () => stored().map(({ id }) => id);
  await waitFor("the last change", () => receiver.eventIds().at(-1) === ids().at(-1), { timeoutMs: 30_000 });
  for (const agent of agents) agent.stop();

  const seen = new Set<string>();
  const fresh = receiver.received.filter(({ id }) => !seen.has(id) && seen.add(id));
  expect(fresh.flatMap(({ payload }) => payload.data.events.map(({ id }) => id))).toEqual(ids());
  expect(receiver.received.length - fresh.length).toBeGreaterThanOrEqual(KILLS);
  expect(receiver.received.every(({ isGenuine }) => isGenuine)).toBe(true);
  expect(await coordinator.stop()).toBe(0);
}, 120_000);
