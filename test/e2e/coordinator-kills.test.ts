/**
 * kill -9 of the coordinator, again and again, while agents report and people start rollouts, cancel, make and revoke
 * tokens: whatever it had acknowledged, by an answer or by a frame, is there when it is back, and in the end everything
 * has ended as its agent says.
 *
 * `COORDINATOR_KILLS=200 bun test --timeout=6000000 test/e2e/coordinator-kills.test.ts` kills it that often.
 */
import { expect, test } from "bun:test";
import { deploymentSchema, logPageSchema } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { createdTokenSchema, tokenListSchema } from "../../src/api/tokens.ts";
import { readAllPages } from "../../src/client/api/all-pages.ts";
import { isTerminal } from "../../src/deployment.ts";
import { type CoordinatorApi, openCoordinatorApi } from "../support/coordinator-api.ts";
import { startCoordinator } from "../support/fleet.ts";
import { createJournalingAgent, type JournalingAgent } from "../support/journaling-agent.ts";
import { createSeededRandom } from "../support/seeded-random.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";

const KILLS = Number(process.env["COORDINATOR_KILLS"] ?? 4);
const AGENTS = 6;
const PATH = createTinyPath("system");
/** Between two kills: what was acknowledged meanwhile. */
const ACKNOWLEDGED = { min: 10, more: 80 };
const LINES_MAX = 10_000;
/** Of each of those who ask, between two requests. */
const PAUSE_MS = 50;

type Api = CoordinatorApi["request"];

/** What somebody was told has been done. */
type Told = {
  readonly tokens: Map<string, { readonly isRevoked: boolean }>;
  readonly rollouts: Map<string, readonly string[]>;
};

test(
  `killed ${KILLS} times under load, it has all that it acknowledged`,
  async () => {
    await using directory = await createTemporaryDirectory("kills");
    const coordinator = await startCoordinator(directory.join("coordinator"), {});
    const random = createSeededRandom(KILLS);
    const { request: api, publish } = await openCoordinatorApi(coordinator);
    await publish(PATH);
    const enrolment = createdTokenSchema.parse(await (await api("tokens", { json: { kind: "agent" } })).json());
    const agents = Array.from({ length: AGENTS }, (_, index) =>
      createJournalingAgent({ name: `agent-${index}`, url: coordinator.url, token: enrolment.token }),
    );
    await waitFor("the agents to be there", () => agents.every((agent) => agent.isConnected));
    const compared = new Set<string>();
    const told: Told = { tokens: new Map(), rollouts: new Map() };
    const over = new AbortController();
    const people = Array.from({ length: 3 }, () => keepAsking({ api, told, agents, random, signal: over.signal }));
    const acknowledged = () =>
      agents.reduce((sum, agent) => sum + agent.acknowledgements, told.tokens.size + told.rollouts.size);
    try {
      for (let kill = 0; kill < KILLS; kill += 1) {
        const until = acknowledged() + ACKNOWLEDGED.min + random.below(ACKNOWLEDGED.more);
        await waitFor("more to be acknowledged", () => acknowledged() >= until, { timeoutMs: 60_000, intervalMs: 1 });
        await coordinator.killHard();
        const before = snapshotOf(told, agents);
        await coordinator.restart();
        const journals = before.journals.filter((journal) => !compared.has(journal.deploymentId));
        await compare(api, { ...before, journals });
        // What has ended was compared after a kill, and is once more in the end.
        for (const journal of journals) if (isWhole(journal)) compared.add(journal.deploymentId);
      }
    } finally {
      over.abort(new Error("enough"));
      await Promise.all(people);
    }
    const ids = [...told.rollouts.values()].flat();
    for (const id of ids) {
      await waitFor(`deployment ${id} to end`, async () => isTerminal((await readDeployment(api, id)).state), {
        timeoutMs: 60_000,
      });
    }
    await compare(api, snapshotOf(told, agents));
    for (const agent of agents) agent.stop();
    expect(agents.flatMap((agent) => agent.faults)).toEqual([]);
    expect(ids.length).toBeGreaterThan(0);
    expect(await coordinator.stop()).toBe(0);
  },
  60_000 + KILLS * 20_000,
);

/** One after the other, as long as it may. Who gets no answer knows nothing. */
async function keepAsking(asking: {
  readonly api: Api;
  readonly told: Told;
  readonly agents: readonly JournalingAgent[];
  readonly random: ReturnType<typeof createSeededRandom>;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { api, told, agents, random, signal } = asking;
  while (!signal.aborted) {
    try {
      const what = random.below(4);
      if (what === 0) await createToken(api, told);
      else if (what === 1) await revokeToken(api, told);
      else if (what === 2) await startRollout(asking);
      else await api("cancellations", { json: { of: [random.pick(agents).name] } });
    } catch {
      // Killed before it answered.
    }
    await Bun.sleep(PAUSE_MS);
  }
}

async function createToken(api: Api, { tokens }: Told): Promise<void> {
  const answer = await api("tokens", { json: { kind: "activate" } });
  if (answer.status !== 201) return;
  tokens.set(createdTokenSchema.parse(await answer.json()).id, { isRevoked: false });
}

async function revokeToken(api: Api, { tokens }: Told): Promise<void> {
  const [id] = [...tokens].find(([, each]) => !each.isRevoked) ?? [];
  if (id === undefined || tokens.size % 2 === 0) return;
  // From here on nobody knows, until it was answered.
  tokens.delete(id);
  if ((await api(`tokens/${id}`, { method: "DELETE" })).status === 204) tokens.set(id, { isRevoked: true });
}

async function startRollout({ api, told, agents, random }: Parameters<typeof keepAsking>[0]): Promise<void> {
  const chosen = agents.filter(() => random.chance(0.4)).map(({ name }) => [name, PATH.storePath] as const);
  if (chosen.length === 0) return;
  const answer = await api("rollouts", { json: { agents: Object.fromEntries(chosen), mode: "switch" } });
  if (answer.status !== 201) return;
  const { id, deployments } = rolloutSchema.parse(await answer.json());
  told.rollouts.set(
    id,
    deployments.map((each) => each.id),
  );
}

function snapshotOf(told: Told, agents: readonly JournalingAgent[]) {
  const journals = agents.flatMap((agent) => agent.journals().map((journal) => ({ ...journal })));
  return {
    tokens: new Map([...told.tokens].map(([id, each]) => [id, { ...each }])),
    rollouts: new Map(told.rollouts),
    journals,
  };
}

function isWhole({ entries, acknowledged }: ReturnType<JournalingAgent["journals"]>[number]): boolean {
  return entries.at(-1)?.type === "outcome" && entries.length === acknowledged;
}

async function readDeployment(api: Api, id: string) {
  return deploymentSchema.parse(await (await api(`deployments/${id}`)).json());
}

/** Whether each is revoked. */
async function listTokens(api: Api): Promise<ReadonlyMap<string, boolean>> {
  const load = async (after = "") => tokenListSchema.parse(await (await api(`tokens?${after}`)).json());
  const tokens = await readAllPages(
    (after) => load(after === undefined ? "" : `after=${after}`),
    (page) => page.tokens,
  );
  return new Map(tokens.map(({ id, revokedAt }) => [id, revokedAt !== null]));
}

async function compare(api: Api, told: ReturnType<typeof snapshotOf>): Promise<void> {
  const tokens = await listTokens(api);
  // One that is revoked meanwhile was not when this was noted.
  for (const [id, { isRevoked }] of told.tokens) {
    expect(tokens.has(id)).toBe(true);
    if (isRevoked) expect([id, tokens.get(id)]).toEqual([id, true]);
  }
  for (const [id, deployments] of told.rollouts) {
    const rollout = rolloutSchema.parse(await (await api(`rollouts/${id}`)).json());
    expect<readonly string[]>(rollout.deployments.map((each) => each.id).sort()).toEqual([...deployments].sort());
  }
  for (const { deploymentId, entries, acknowledged } of told.journals) {
    const known = entries.slice(0, acknowledged);
    const deployment = await readDeployment(api, deploymentId);
    const outcome = known.find((entry) => entry.type === "outcome");
    if (outcome !== undefined) {
      const ends = outcome.outcome === "cancelled" ? ["cancelled", "superseded"] : [outcome.outcome];
      expect(ends).toContain(deployment.state);
    }
    // Of a hundred newer ones of the same agent, the oldest log goes.
    if (deployment.logExpired) continue;
    const page = logPageSchema.parse(await (await api(`deployments/${deploymentId}/log?limit=${LINES_MAX}`)).json());
    const expected = known.flatMap((entry) => (entry.type === "log" ? [{ n: entry.n, text: entry.text }] : []));
    const stored = page.lines.map(({ n, text }) => ({ n, text }));
    expect(stored.slice(0, expected.length)).toEqual(expected);
    expect(stored.map(({ n }) => n)).toEqual([...new Set(stored.map(({ n }) => n))].sort((a, b) => a - b));
  }
}
