/**
 * kill -9 around the moment at which a rollout is committed: of the coordinator, while `activate` waits for its answer,
 * and of `activate` itself, which CI then runs again with the same key. Whatever dies when, each is rolled out once.
 *
 * `ROLLOUT_KILLS=300 bun test --timeout=6000000 test/e2e/rollout-kills.test.ts` kills that often; the moments are drawn from
 * `ROLLOUT_KILLS_SEED`.
 */
import { expect, test } from "bun:test";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { type CoordinatorApi, openCommitted, openCoordinatorApi } from "../support/coordinator-api.ts";
import { BINARY, type CoordinatorProcess, startCoordinator } from "../support/fleet.ts";
import { createJournalingAgent, type JournalingAgent } from "../support/journaling-agent.ts";
import { watchFor } from "../support/kill-moment.ts";
import { type OutputLine, type SpawnedProcess, spawnProcess } from "../support/processes.ts";
import { createSeededRandom, type SeededRandom } from "../support/seeded-random.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";

const KILLS = Number(process.env["ROLLOUT_KILLS"] ?? 6);
const SEED = Number(process.env["ROLLOUT_KILLS_SEED"] ?? 1);
/** Within which at least one kill must have fallen between commit and answer. */
const KILLS_MAX = KILLS + 30;
const AGENTS = 3;
const PATH = createTinyPath("system");
/** In which `activate` starts, looks at what it is to do, asks, and is answered. */
const START_MAX_MS = 700;

const VICTIMS = ["coordinator", "activate", "both"] as const;
/** `committed`: as soon as the rollout can be seen in the database. */
const MOMENTS = ["committed", "committed", "some time"] as const;

type Scene = {
  readonly coordinator: CoordinatorProcess;
  readonly api: CoordinatorApi;
  readonly agents: readonly JournalingAgent[];
  readonly random: SeededRandom;
};

test(
  `whoever is killed when, each of ${KILLS} rollouts exists once`,
  async () => {
    await using directory = await createTemporaryDirectory("rollout-kills");
    const coordinator = await startCoordinator(directory.join("coordinator"), {});
    const api = await openCoordinatorApi(coordinator);
    await api.publish(PATH);
    const { token } = createdTokenSchema.parse(await (await api.request("tokens", { json: { kind: "agent" } })).json());
    const names = Array.from({ length: AGENTS }, (_, index) => `agent-${index}`);
    const agents = names.map((name) => createJournalingAgent({ name, url: coordinator.url, token }));
    await waitFor("the agents to be there", () => agents.every((agent) => agent.isConnected));
    const scene: Scene = { coordinator, api, agents, random: createSeededRandom(SEED) };
    const tries: { readonly key: string; readonly wasAskedAgain: boolean }[] = [];
    while (tries.length < KILLS || (!tries.some((each) => each.wasAskedAgain) && tries.length < KILLS_MAX)) {
      tries.push(await rollOut(scene, `try-${tries.length}`));
    }
    using committed = openCommitted(coordinator);
    const counts = committed.ask("select description as key, count(*) as rollouts from rollouts group by description");
    expect(counts).toEqual(expect.arrayContaining(tries.map(({ key }) => ({ key, rollouts: 1 }))));
    expect(counts).toHaveLength(tries.length);
    for (const agent of agents) agent.stop();
    expect(agents.flatMap((agent) => agent.faults)).toEqual([]);
    const again = tries.filter((each) => each.wasAskedAgain).length;
    console.info(`${again} of ${tries.length} kills fell between a rollout's commit and its answer (seed ${SEED})`);
    expect(again).toBeGreaterThan(0);
    expect(await coordinator.stop()).toBe(0);
  },
  120_000 + KILLS * 20_000,
);

/** One `activate` with its kill, run again until it has its answer. */
async function rollOut(scene: Scene, key: string) {
  const { coordinator, random } = scene;
  const victim = random.pick(VICTIMS);
  const moment = random.pick(MOMENTS);
  const atMs = random.below(START_MAX_MS);
  const first = startActivate(scene, key);
  await Promise.race([first.exited, moment === "committed" ? isCommitted(coordinator, key) : Bun.sleep(atMs)]);
  if (victim !== "activate") await coordinator.killHard();
  if (victim !== "coordinator") first.kill("SIGKILL");
  using committed = openCommitted(coordinator);
  const find = () => committed.ask(`select id from rollouts where description = '${key}'`);
  const wasThere = find().length > 0;
  if (victim !== "activate") await coordinator.restart();
  let { exitCode, stdout } = await ended(first);
  // CI starts a job again that was killed, or that found nobody there, with the key that it was given. One whose rollout is
  // there waits for its answer by itself.
  const mustWait = victim === "coordinator" && wasThere;
  if (exitCode !== 0 && !mustWait) ({ exitCode, stdout } = await ended(startActivate(scene, key)));
  expect({ key, victim, moment, exitCode }).toEqual({ key, victim, moment, exitCode: 0 });
  const { id } = JSON.parse(stdout);
  expect([key, find()]).toEqual([key, [{ id }]]);
  const isAskedAgain = ({ text }: OutputLine) => text.includes("rollout asked for again") && text.includes(id);
  return { key, wasAskedAgain: coordinator.process.lines.some(isAskedAgain) };
}

function startActivate({ coordinator, api, agents }: Scene, key: string) {
  const flags = ["--async", "--json", "--description", key, "--idempotency-key", key];
  const targets = agents.map(({ name }) => `${name}=${PATH.storePath}`);
  return spawnProcess([BINARY, "activate", ...flags, ...targets], {
    env: { NIXDEPLOY_URL: coordinator.url, NIXDEPLOY_TOKEN: api.adminToken },
  });
}

async function ended(activate: SpawnedProcess): Promise<{ readonly exitCode: number | null; readonly stdout: string }> {
  const { exitCode } = await activate.exited;
  const printed = activate.lines.filter(({ stream }) => stream === "stdout").map(({ text }) => text);
  return { exitCode, stdout: printed.join("\n") };
}

async function isCommitted(coordinator: CoordinatorProcess, key: string): Promise<void> {
  using committed = openCommitted(coordinator);
  const query = `select 1 from rollouts where description = '${key}'`;
  await watchFor("the rollout to be committed", () => committed.ask(query).length > 0);
}
