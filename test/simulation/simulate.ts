/** One seed: a world is made, much happens to it, then nothing fails any more, and what must hold is looked at. */
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { actAtRandom, type Stage } from "./acts.ts";
import { findWaiting, findWrongViews } from "./follower-truth.ts";
import { findDisorder, findLies, findUnrest, findUntold, readKnown } from "./truth.ts";
import { createWorld, PATHS, type World } from "./world.ts";

export type Simulated = { readonly faults: readonly string[]; readonly story: readonly string[] };

const ACTS = { min: 15, more: 35 };
const PAUSE_MS = { min: 50, max: 40_000 };
/** In which silence comes to count as offline, and what waits too long ends. */
const LONG_PAUSE_MS = { min: 90_000, max: 400_000 };
/** In which everything must have come to rest: what the coordinator tries again by itself takes 21 minutes. */
const REST_MAX_MS = 60 * 60_000;
const REST_STEP_MS = 20_000;
const PEACE_STEP_MS = 1_000;
/** From then on until everybody who follows has seen it: a stream that fell silent is given up after a minute. */
const FOLLOWED_MAX_MS = 3 * 60_000;

export async function simulate(options: { readonly seed: number; readonly directory: string }): Promise<Simulated> {
  await using world = await createWorld(options);
  const stage: Stage = { world, later: [], backups: [] };
  const acts = ACTS.min + world.random.below(ACTS.more);
  for (let act = 0; act < acts && world.bugs.length === 0; act += 1) {
    // Several things may happen at one moment.
    await actAtRandom(stage);
    if (world.random.chance(0.2)) continue;
    const pauseMs = world.random.chance(0.07) ? LONG_PAUSE_MS : PAUSE_MS;
    await passTime(stage, world.random.durationMs(pauseMs.min, pauseMs.max));
    world.bugs.push(...findDisorder(readKnown(world)));
  }
  await heal(world);
  const unrest = world.bugs.length > 0 ? [] : await settle(world);
  if (world.bugs.length === 0 && unrest.length === 0) unrest.push(...(await deployInPeace(world)));
  const lies = world.bugs.length > 0 || unrest.length > 0 ? [] : await findAllLies(world);
  const known = readKnown(world);
  for (const row of known.rows) {
    const late = row.late_outcome === null ? "" : `; said later: ${row.late_outcome}: ${row.late_reason}`;
    world.tell(`in the end: ${row.id} of ${row.agent} ${row.state}: ${row.reason}${late}`);
  }
  for (const event of known.events) world.tell(`event: ${event.deploymentId} ${event.state}`);
  return { faults: [...world.bugs, ...unrest, ...lies], story: world.story };
}

/** Once more to everybody, with nothing in the way: who lives is heard, even where nothing comes after a line for long. */
async function deployInPeace(world: World): Promise<string[]> {
  const agents = Object.fromEntries(world.devices.map(({ name }) => [name, world.random.pick(PATHS).storePath]));
  const answer = await world.request("rollouts", { json: { agents, mode: "switch" } });
  if (answer?.status !== 201) return [];
  const { id } = rolloutSchema.parse(answer.body);
  world.tell(`in peace: ${id}`);
  // What was printed before may be what a restore forgot.
  for (const { hardware } of world.devices) hardware.said.length = 0;
  world.follow(id);
  const untilMs = world.clock.nowMs() + REST_MAX_MS;
  while (findUnrest(world, readKnown(world)).length > 0) {
    if (world.clock.nowMs() >= untilMs) return findUnrest(world, readKnown(world));
    await world.clock.advance(PEACE_STEP_MS);
    const untold = await findUntold(world);
    if (untold.length > 0) return untold;
  }
  return [];
}

async function findAllLies(world: World): Promise<string[]> {
  // Followers have come to an end by now, unless they miss something.
  for (let waitedMs = 0; waitedMs < FOLLOWED_MAX_MS && findWaiting(world).length > 0; waitedMs += REST_STEP_MS) {
    await world.clock.advance(REST_STEP_MS);
  }
  const known = readKnown(world);
  return [...(await findLies(world, known)), ...findWaiting(world), ...(await findWrongViews(world, known))];
}

/** Time goes on, and with it what was put off. */
async function passTime({ world, later }: Stage, durationMs: number): Promise<void> {
  const untilMs = world.clock.nowMs() + durationMs;
  for (;;) {
    const due = later.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
    if (due === undefined) break;
    later.splice(later.indexOf(due), 1);
    await world.clock.advance(Math.max(0, due.atMs - world.clock.nowMs()));
    world.tell(due.what);
    await due.run();
  }
  await world.clock.advance(Math.max(0, untilMs - world.clock.nowMs()));
}

async function heal(world: World): Promise<void> {
  world.tell("nothing fails any more");
  world.network.mend();
  world.coordinator?.killAfter(Number.POSITIVE_INFINITY);
  await world.startCoordinator();
  for (const device of world.devices) {
    device.freeDisk();
    if (!device.isRunning) device.start();
  }
}

/** @returns what is still going on after a long time */
async function settle(world: World): Promise<string[]> {
  const untilMs = world.clock.nowMs() + REST_MAX_MS;
  for (;;) {
    const unrest = findUnrest(world, readKnown(world));
    if (unrest.length === 0 || world.clock.nowMs() >= untilMs) return unrest;
    await world.clock.advance(REST_STEP_MS);
    world.bugs.push(...findDisorder(readKnown(world)));
  }
}
