/**
 * kill -9 while a device is given another key (`agent rotate-key`): of the command, of the agent and of the coordinator, at
 * each step that can be seen from outside and at any time in between. Whatever dies when, the device gets in afterwards, and
 * both sides agree on its key.
 *
 *     step                   seen by                                 then dies
 *     the next key is made   the file next-key                       command, agent or coordinator
 *     it is registered       the agent's key in the database         the same; here the device has not heard of it yet
 *     it is the key          next-key is gone                        the same
 *     any                    time                                    the same
 *
 * `ROTATION_KILLS=200 bun test --timeout=6000000 test/e2e/key-rotation-kills.test.ts` kills that often; what and when is drawn
 * from `ROTATION_KILLS_SEED`.
 */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { findKey } from "../../src/agent/link/identity.ts";
import { type AgentDto, agentListSchema } from "../../src/api/agents.ts";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { type CoordinatorApi, openCommitted, openCoordinatorApi } from "../support/coordinator-api.ts";
import { BINARY, type CoordinatorProcess, startCoordinator } from "../support/fleet.ts";
import { watchFor } from "../support/kill-moment.ts";
import { type SpawnedProcess, spawnProcess } from "../support/processes.ts";
import { createSeededRandom } from "../support/seeded-random.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

const KILLS = Number(process.env["ROTATION_KILLS"] ?? 3);
const SEED = Number(process.env["ROTATION_KILLS_SEED"] ?? 1);
const NAME = "nuc";
/** The agent looks for a next key every five seconds, and then logs in. */
const ROTATION_MAX_MS = 7_000;

const VICTIMS = ["command", "agent", "coordinator"] as const;
const STEPS = ["made", "registered", "promoted", "any"] as const;
type Step = (typeof STEPS)[number];
const ALL = STEPS.flatMap((step) => VICTIMS.map((victim) => ({ step, victim })));
/** First of all where the two sides know different things. */
const FIRST = VICTIMS.map((victim) => ({ step: "registered", victim }) as const);

type Scene = {
  readonly coordinator: CoordinatorProcess;
  readonly api: CoordinatorApi;
  readonly stateDirectory: string;
  readonly enrolmentToken: string;
};

test(
  `killed ${KILLS} times while it is given another key, a device gets in`,
  async () => {
    await using directory = await createTemporaryDirectory("rotation-kills");
    const coordinator = await startCoordinator(directory.join("coordinator"), {});
    const api = await openCoordinatorApi(coordinator);
    const made = await api.request("tokens", { json: { kind: "agent", usesMax: 1 } });
    const { token: enrolmentToken } = createdTokenSchema.parse(await made.json());
    const scene: Scene = { coordinator, api, stateDirectory: directory.join("agent"), enrolmentToken };
    const random = createSeededRandom(SEED);
    let agent = startAgent(scene);
    let known = await settled(scene);
    const { keyFingerprint: firstFingerprint } = known;
    const retired = directory.join("retired");
    mkdirSync(retired, { mode: 0o700 });
    await copyFile(join(scene.stateDirectory, "key"), join(retired, "key"));
    let rotations = 0;
    for (let kill = 0; kill < KILLS; kill += 1) {
      const { step, victim } = FIRST[kill] ?? random.pick(ALL);
      const command = startCommand(scene);
      await moment(scene, { step, known, command, afterMs: random.below(ROTATION_MAX_MS) });
      const killed = { command, agent, coordinator: coordinator.process }[victim];
      killed.kill("SIGKILL");
      await killed.exited;
      if (victim === "coordinator") await coordinator.restart();
      if (victim === "agent") agent = startAgent(scene);
      const { exitCode } = await command.exited;
      if (victim !== "command") expect({ step, victim, exitCode }).toEqual({ step, victim, exitCode: 0 });
      const after = await settled(scene);
      // The same agent, whose key was changed once or not at all; a command that was not killed has changed it.
      expect({ step, victim, at: after.registeredAt }).toEqual({ step, victim, at: known.registeredAt });
      const isRotated = after.keyFingerprint !== known.keyFingerprint;
      if (victim !== "command") expect({ step, victim, isRotated }).toEqual({ step, victim, isRotated: true });
      rotations += isRotated ? 1 : 0;
      known = after;
    }
    expect(known.keyFingerprint).not.toBe(firstFingerprint);
    await agent.stop();
    const old = startAgent({ ...scene, stateDirectory: retired });
    await old.waitForLine(/this agent has had a newer key since/, { timeoutMs: 90_000 });
    await old.stop();
    console.info(`${rotations} rotations in ${KILLS} kills (seed ${SEED})`);
    expect(await coordinator.stop()).toBe(0);
  },
  120_000 + KILLS * 60_000,
);

function startAgent({ coordinator, stateDirectory, enrolmentToken }: Scene): SpawnedProcess {
  const flags = ["--name", NAME, "--profile", join(stateDirectory, "profile"), "--state-dir", stateDirectory];
  return spawnProcess([BINARY, "agent", ...flags], {
    env: { NIXDEPLOY_URL: coordinator.url, NIXDEPLOY_AGENT_TOKEN: enrolmentToken },
  });
}

function startCommand({ stateDirectory }: Scene): SpawnedProcess {
  return spawnProcess([BINARY, "agent", "rotate-key", "--name", NAME, "--state-dir", stateDirectory]);
}

/** Resolves when the step is seen, or the command has ended without it. */
async function moment(
  scene: Scene,
  at: {
    readonly step: Step;
    readonly known: AgentDto;
    readonly command: SpawnedProcess;
    readonly afterMs: number;
  },
): Promise<void> {
  const next = () => existsSync(join(scene.stateDirectory, "next-key"));
  let isEnded = false;
  void at.command.exited.then(() => {
    isEnded = true;
  });
  if (at.step === "any") return await Bun.sleep(at.afterMs);
  await watchFor("a next key", () => next() || isEnded);
  if (at.step === "made") return;
  if (at.step === "promoted") return await watchFor("the next key to be the key", () => !next() || isEnded);
  using committed = openCommitted(scene.coordinator);
  const keys = () => JSON.stringify(committed.ask("select hex(public_key) as key from agents"));
  const before = keys();
  // It may have been registered between the two looks.
  await watchFor("the next key to be registered", () => keys() !== before || !next() || isEnded);
}

/** The device is in contact, has one key, and the coordinator knows it by that. */
async function settled({ api, stateDirectory }: Scene): Promise<AgentDto> {
  let found: AgentDto | undefined;
  await waitFor(
    "device and coordinator to agree on its key",
    async () => {
      if (existsSync(join(stateDirectory, "next-key")) || !existsSync(join(stateDirectory, "key"))) return false;
      const { agents } = agentListSchema.parse(await (await api.request("agents")).json());
      [found] = agents;
      const own = await findKey(stateDirectory);
      return agents.length === 1 && found?.contact === "online" && found.keyFingerprint === own?.fingerprint;
    },
    { timeoutMs: 90_000 },
  );
  if (found === undefined) throw new Error("there is no agent");
  return found;
}
