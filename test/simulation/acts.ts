/** What people do and what goes wrong, drawn at random: one act at a time, each with what must be true of its answer. */
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { agentListSchema } from "../../src/api/agents.ts";
import { deploymentListSchema } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { NixdeployError } from "../../src/errors.ts";
import { openDataDirectory } from "../../src/server/data-directory.ts";
import { restoreBackup, writeBackup } from "../../src/server/operations/backup.ts";
import { databaseFileOf } from "./coordinator-process.ts";
import type { Device } from "./device.ts";
import { BREAKS } from "./network.ts";
import { type Answer, PATHS, type World } from "./world.ts";

/** What is to happen later: whatever was killed starts again. */
export type Later = { readonly atMs: number; readonly what: string; readonly run: () => Promise<void> | void };

export type Stage = {
  readonly world: World;
  readonly later: Later[];
  /** Backups so far, oldest first. */
  readonly backups: { readonly file: string; readonly takenMs: number }[];
};

type Act = (stage: Stage) => Promise<void> | void;

/** How often each is drawn, among all. */
const ACTS: readonly (readonly [weight: number, name: string, act: Act])[] = [
  [24, "rollout", startRollout],
  [10, "offer and cut off", offerAndCutOff],
  [8, "cancel", (stage) => ask(stage, "cancellations")],
  [8, "retry", (stage) => ask(stage, "retries")],
  [3, "revoke", revokeToken],
  [9, "local activate", activateHere],
  [3, "kill local activate", killCommands],
  [6, "follow", follow],
  [8, "cut followers off", cutFollowersOff],
  [4, "kill followers", killFollowers],
  [12, "break", breakConnection],
  [5, "isolate", isolate],
  [5, "slow", slowDown],
  [9, "kill agent", killAgent],
  [4, "power off", async (stage) => void (await powerOff(stage))],
  [1, "lose journals", loseJournals],
  [4, "stuck disk", stickDisk],
  [5, "kill coordinator", killCoordinator],
  [8, "kill coordinator between statements", killCoordinatorSoon],
  [2, "restart coordinator", restartCoordinator],
  [4, "back up", backUp],
  [2, "restore", restore],
  [2, "second coordinator", startSecond],
];
/** Often longer than it takes until silence counts as offline, which is up to 150 s where nobody told the coordinator. */
const CUT_OFF_MAX_MS = 400_000;
const WEIGHTS = ACTS.reduce((sum, [weight]) => sum + weight, 0);

export async function actAtRandom(stage: Stage): Promise<void> {
  let drawn = stage.world.random.below(WEIGHTS);
  for (const [weight, name, act] of ACTS) {
    drawn -= weight;
    if (drawn >= 0) continue;
    stage.world.tell(name);
    return await act(stage);
  }
}

/** A client's mistakes are refused; nothing may be the coordinator's fault. */
function judge({ world }: Stage, what: string, answer: Answer | null): Answer | null {
  if (answer !== null && answer.status >= 500) {
    world.bugs.push(`${what} was answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  }
  return answer !== null && answer.status < 300 ? answer : null;
}

async function startRollout(stage: Stage, token?: string): Promise<void> {
  const { world } = stage;
  const { random } = world;
  const list = judge(stage, "agents", await world.request("agents"));
  const names = list === null ? [] : agentListSchema.parse(list.body).agents.map(({ name }) => name);
  const chosen = names.filter(() => random.chance(0.7));
  if (chosen.length === 0) return;
  const agents = Object.fromEntries(chosen.map((name) => [name, random.pick(PATHS).storePath]));
  const policy = random.chance(0.5) ? {} : { policy: { confirmWindowMs: random.durationMs(5_000, 60_000) } };
  const expiry = random.chance(0.7) ? {} : { expiresInMs: random.durationMs(5_000, 10 * 60_000) };
  const json = { agents, mode: "switch", retry: random.chance(0.3), ...policy, ...expiry };
  const answer = judge(
    stage,
    "rollout",
    await world.request("rollouts", { json, ...(token === undefined ? {} : { token }) }),
  );
  if (answer !== null) keepAcknowledged(stage, answer);
}

function keepAcknowledged({ world }: Stage, { body }: Answer): void {
  const { id, deployments } = rolloutSchema.parse(body);
  world.tell(`rollout ${id}: ${deployments.map((each) => `${each.agent} ${each.id}`).join(", ")}`);
  world.acknowledged.push({ id, deployments: deployments.map((each) => each.id), atMs: world.clock.nowMs() });
  if (world.random.chance(0.5)) world.follow(id);
}

/** Cancels or tries again something that may be there. */
async function ask(stage: Stage, what: "cancellations" | "retries"): Promise<void> {
  const { world } = stage;
  const { random } = world;
  const list = judge(stage, "deployments", await world.request("deployments?limit=20"));
  const rows = list === null ? [] : deploymentListSchema.parse(list.body).deployments;
  if (rows.length === 0) return;
  const row = random.pick(rows);
  const of = [random.pick([row.id, row.rollout, row.agent])];
  const answer = judge(stage, what, await world.request(what, { json: { of } }));
  world.tell(`${what} of ${of}: ${answer === null ? "not done" : "done"}`);
  if (answer !== null && what === "retries") keepAcknowledged(stage, answer);
}

async function revokeToken(stage: Stage): Promise<void> {
  const { world } = stage;
  const made = judge(stage, "token", await world.request("tokens", { json: { kind: "activate" } }));
  if (made === null) return;
  const { id, token } = createdTokenSchema.parse(made.body);
  await startRollout(stage, token);
  const revoked = judge(stage, "revoke", await world.request(`tokens/${id}`, { method: "DELETE" }));
  const after = await world.request("deployments", { token });
  if (revoked !== null && after !== null && after.status !== 401) {
    world.bugs.push(`a revoked token was answered ${after.status}`);
  }
}

/** Some while the agent is at work on something else, offline, or does not run. */
function activateHere({ world }: Stage): void {
  const { random } = world;
  random.pick(world.devices).activateHere(random.pick(PATHS).storePath, random.chance(0.6));
}

async function killCommands({ world }: Stage): Promise<void> {
  await world.random.pick(world.devices).killCommands();
}

/** Often while it runs, and often when it has ended long ago. */
function follow({ world }: Stage): void {
  const { random, acknowledged } = world;
  const latest = acknowledged.slice(random.chance(0.7) ? -2 : 0);
  if (latest.length > 0) world.follow(random.pick(latest).id);
}

function cutFollowersOff({ world }: Stage): void {
  for (const follower of world.followers) if (world.random.chance(0.5)) follower.cut(world.random.chance(0.5));
}

function killFollowers({ world }: Stage): void {
  for (const follower of world.followers) if (world.random.chance(0.5)) follower.kill();
}

function breakConnection({ world }: Stage): void {
  const { random } = world;
  world.network.breakOff(random.pick(world.devices).name, random.pick(BREAKS));
}

function isolate(stage: Stage): void {
  const { world } = stage;
  const { random } = world;
  const { name } = random.pick(world.devices);
  world.network.isolate(name);
  world.network.breakOff(name, random.pick(BREAKS));
  later(stage, 200_000, "the network is mended", () => world.network.mend());
}

/** It is told of a deployment that does not wait for long, and whether it took it nobody hears before that has ended. */
async function offerAndCutOff(stage: Stage): Promise<void> {
  const { world } = stage;
  const { random } = world;
  const { name } = random.pick(world.devices);
  const json = {
    agents: { [name]: random.pick(PATHS).storePath },
    mode: random.chance(0.5) ? "switch" : "boot",
    expiresInMs: random.durationMs(1_000, 60_000),
  };
  const answer = judge(stage, "rollout", await world.request("rollouts", { json }));
  if (answer !== null) keepAcknowledged(stage, answer);
  await world.clock.advance(random.below(60));
  world.network.breakOff(name, random.pick(BREAKS));
  world.network.isolate(name);
  const atMs = world.clock.nowMs() + random.below(CUT_OFF_MAX_MS);
  stage.later.push({ atMs, what: "the network is mended", run: () => world.network.mend() });
}

function slowDown(stage: Stage): void {
  const { world } = stage;
  const { random } = world;
  world.network.slow(random.pick(world.devices).name, random.durationMs(100, 50_000));
  later(stage, 100_000, "the network is mended", () => world.network.mend());
}

async function killAgent(stage: Stage): Promise<void> {
  const device = pickRunning(stage);
  if (device === null) return;
  await device.kill();
  stage.world.network.breakOff(device.name, "coordinator");
  later(stage, 20_000, `${device.name} starts`, () => start(device));
}

async function powerOff(stage: Stage): Promise<Device | null> {
  const device = pickRunning(stage);
  if (device === null) return null;
  await device.powerOff();
  stage.world.network.breakOff(device.name, "nobody");
  later(stage, 200_000, `${device.name} starts`, () => start(device));
  return device;
}

async function loseJournals(stage: Stage): Promise<void> {
  (await powerOff(stage))?.loseJournals();
}

function stickDisk(stage: Stage): void {
  const device = pickRunning(stage);
  if (device === null) return;
  device.stickDisk();
  later(stage, 400_000, `${device.name}'s disk answers again`, () => device.freeDisk());
}

function start(device: Device): void {
  if (!device.isRunning) device.start();
}

function pickRunning({ world }: Stage): Device | null {
  const running = world.devices.filter((device) => device.isRunning);
  return running.length === 0 ? null : world.random.pick(running);
}

function killCoordinator(stage: Stage): void {
  const { world } = stage;
  world.killCoordinator(world.random.pick(["agent", "nobody"]));
  later(stage, 120_000, "the coordinator starts", () => world.startCoordinator());
}

function killCoordinatorSoon(stage: Stage): void {
  const { world } = stage;
  world.coordinator?.killAfter(world.random.below(60));
  later(stage, 120_000, "the coordinator starts, if it died", () => world.startCoordinator());
}

async function restartCoordinator({ world }: Stage): Promise<void> {
  await world.stopCoordinator();
  await world.startCoordinator();
}

async function backUp({ world, backups }: Stage): Promise<void> {
  const file = join(world.directory, `backup-${backups.length}`);
  await writeBackup({ databaseFile: databaseFileOf(join(world.directory, "data")), file });
  backups.push({ file, takenMs: world.clock.nowMs() });
}

async function restore(stage: Stage): Promise<void> {
  const { world, backups } = stage;
  if (backups.length === 0) return;
  const { file, takenMs } = world.random.pick(backups);
  if (world.random.chance(0.5)) await world.stopCoordinator();
  else world.killCoordinator("agent");
  // A restore may be made of a backup more than once.
  const copy = `${file}.copy`;
  await copyFile(file, copy);
  const report = await restoreBackup({
    ...{ file: copy, dataDirectory: join(world.directory, "data"), replace: true, clock: world.clock },
  });
  world.tell(`restored; ${report.cancelled} cancelled`);
  world.restored.push({ takenMs, atMs: world.clock.nowMs() });
  await world.startCoordinator();
}

function startSecond({ world }: Stage): void {
  if (world.coordinator === null) return;
  try {
    openDataDirectory(join(world.directory, "data"))[Symbol.dispose]();
    world.bugs.push("a second coordinator may use the data directory");
  } catch (error) {
    if (!(error instanceof NixdeployError) || error.kind !== "conflict") throw error;
  }
}

function later({ world, later: list }: Stage, maxMs: number, what: string, run: Later["run"]): void {
  list.push({ atMs: world.clock.nowMs() + world.random.durationMs(500, maxMs), what, run });
}
