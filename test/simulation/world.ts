/**
 * A coordinator, its devices, the network between them and somebody who starts rollouts: all in one process, on a clock
 * that only the test moves, with all chance from one seed. What is done and what fails is drawn in `acts.ts`; what must
 * hold is in `truth.ts`.
 */
import { join } from "node:path";
import { createdTokenSchema } from "../../src/api/tokens.ts";
import { parseCacheName, type RolloutId } from "../../src/names.ts";
import { findCache } from "../../src/server/database/caches.ts";
import { insertNar } from "../../src/server/database/paths.ts";
import { type RequestOptions, toRequest } from "../support/coordinator.ts";
import { createManualClock, type ManualClock } from "../support/manual-clock.ts";
import { createSeededRandom, type SeededRandom } from "../support/seeded-random.ts";
import { createTinyPath, type TinyPath } from "../support/tiny-path.ts";
import { type CoordinatorProcess, startCoordinatorProcess } from "./coordinator-process.ts";
import { createDevice, type Device } from "./device.ts";
import { createFollower, type Follower, type OpenStream } from "./follower.ts";
import { createNetwork, type Network } from "./network.ts";

export const URL = "http://coordinator.test";
export const PATHS: readonly TinyPath[] = Array.from({ length: 12 }, (_, index) => createTinyPath(`system-${index}`));

/** The answer to a request, unless it got lost with the coordinator. */
export type Answer = { readonly status: number; readonly body: unknown };

/** A rollout that was acknowledged: 201. */
export type Acknowledged = { readonly id: RolloutId; readonly deployments: readonly string[]; readonly atMs: number };

export type World = AsyncDisposable & {
  readonly clock: ManualClock;
  readonly random: SeededRandom;
  readonly network: Network;
  readonly devices: readonly Device[];
  readonly followers: readonly Follower[];
  readonly directory: string;
  /** What must never be, as it was noticed. */
  readonly bugs: string[];
  readonly acknowledged: Acknowledged[];
  /** Everything that happened, to look at when it failed. */
  readonly story: string[];
  /** Copies of the database that were made a restore of, and when each was taken. */
  readonly restored: { readonly takenMs: number; readonly atMs: number }[];
  readonly coordinator: CoordinatorProcess | null;
  startCoordinator(): Promise<void>;
  killCoordinator(told: "agent" | "nobody"): void;
  stopCoordinator(): Promise<void>;
  /** Null: nobody answered. */
  request(path: string, options?: RequestOptions): Promise<Answer | null>;
  follow(rolloutId: RolloutId): void;
  tell(what: string): void;
};

export async function createWorld(options: { readonly seed: number; readonly directory: string }): Promise<World> {
  const { directory } = options;
  const random = createSeededRandom(options.seed);
  const clock = createManualClock({ turns: 2 });
  const bugs: string[] = [];
  const story: string[] = [];
  const startMs = clock.nowMs();
  const tell = (what: string) => void story.push(`${((clock.nowMs() - startMs) / 1_000).toFixed(1)} s: ${what}`);
  const onBug = (what: string) => {
    tell(`BUG ${what}`);
    bugs.push(what);
  };
  let current: CoordinatorProcess | null = null;
  let adminToken = "";
  const started: CoordinatorProcess[] = [];
  const network = createNetwork({
    clock,
    random: random.fork("network"),
    openSession: (socket) => (current === null ? null : current.coordinator.openAgentSession(socket)),
  });
  const request: World["request"] = async (path, how = {}) => {
    const asked = current;
    if (asked === null) return null;
    const answer = await fetchFrom(asked, toRequest(path, { token: adminToken, ...how }));
    return answer === null ? null : { status: answer.status, body: await answer.json().catch(() => null) };
  };
  const open = async (path: string, headers: Readonly<Record<string, string>>): Promise<OpenStream | null> => {
    const asked = current;
    if (asked === null) return null;
    const response = await fetchFrom(asked, toRequest(path, { token: adminToken, headers }));
    return response === null ? null : { response, death: asked.death };
  };
  const devices: Device[] = [];
  const followers: Follower[] = [];
  let toldOfDeath: "agent" | "nobody" = "agent";
  const world: World = {
    ...{ clock, random, network, devices, followers, directory, bugs, story, request, tell },
    acknowledged: [],
    restored: [],
    get coordinator() {
      return current;
    },
    async startCoordinator() {
      if (current !== null) return;
      const number = started.length + 1;
      current = await startCoordinatorProcess({
        directory: join(directory, "data"),
        clock,
        random: random.fork(`coordinator ${number}`),
        publicUrl: URL,
        onAdminToken: (token) => {
          adminToken = token;
        },
        onBug,
        tell,
        onDeath: () => {
          current = null;
          tell(`the coordinator died; told: ${toldOfDeath}`);
          network.coordinatorDied(toldOfDeath);
        },
      });
      started.push(current);
      tell("the coordinator started");
    },
    killCoordinator(told) {
      toldOfDeath = told;
      current?.kill();
    },
    async stopCoordinator() {
      const stopping = current;
      current = null;
      network.coordinatorDied("agent");
      await stopping?.stop();
      tell("the coordinator stopped");
    },
    follow(rolloutId) {
      const own = random.fork(`follower ${followers.length}`);
      followers.push(createFollower({ rolloutId, clock, random: own, request, open, onBug }));
    },
    async [Symbol.asyncDispose]() {
      for (const follower of followers) await follower[Symbol.asyncDispose]();
      for (const device of devices) await device[Symbol.asyncDispose]();
      await network[Symbol.asyncDispose]();
      await current?.stop();
      for (const process of started) await process.bury();
    },
  };
  await world.startCoordinator();
  await publish(world);
  const count = 2 + random.below(4);
  for (let index = 0; index < count; index += 1) {
    const name = `device-${index}`;
    const token = createdTokenSchema.parse((await request("tokens", { json: { kind: "agent" } }))?.body).token;
    const device = createDevice({
      ...{ name, token, clock, network, onBug, tell, paths: PATHS, coordinatorUrl: URL },
      directory: join(directory, name),
      random: random.fork(name),
      request: async (asked) => (current === null ? gone() : ((await fetchFrom(current, asked)) ?? gone())),
    });
    devices.push(device);
    device.start();
  }
  return world;
}

/** @returns null when the coordinator died before it had answered */
async function fetchFrom(process: CoordinatorProcess, request: Request): Promise<Response | null> {
  const answer = await Promise.race([
    process.coordinator.fetch(request, { control: false }),
    process.death.then(() => null),
  ]);
  return process.isDead ? null : answer;
}

function gone(): Response {
  return new Response("nobody is there", { status: 503 });
}

async function publish({ coordinator, request, bugs }: World): Promise<void> {
  if (coordinator === null) return;
  const { database } = coordinator.coordinator.services;
  const cache = await findCache(database, parseCacheName("default"));
  for (const { narHash, nar, fileHash, file } of PATHS) {
    await insertNar(database, {
      ...{ cache_id: cache?.id ?? "", file_hash: fileHash, nar_hash: narHash, nar_size_bytes: nar.length },
      ...{ file_size_bytes: file.length, compression: "zstd", created_ms: 0 },
    });
  }
  const answer = await request("caches/default/paths", { json: { paths: PATHS.map((path) => path.published) } });
  if (answer?.status !== 201) bugs.push(`cannot publish: ${JSON.stringify(answer)}`);
}
