/**
 * A coordinator that can be killed between any two statements, on a real data directory: what its database had
 * committed is there for the next one, everything else is gone, and the dead one can touch nothing any more.
 */
import { join } from "node:path";
import type { LogFields, Logger } from "../../src/log.ts";
import type { Clock } from "../../src/runtime.ts";
import type { BlobStore } from "../../src/server/cache/blob-store.ts";
import { type Coordinator, createCoordinator } from "../../src/server/coordinator.ts";
import { openDataDirectory } from "../../src/server/data-directory.ts";
import { openConnection, useConnection } from "../../src/server/database/dialect.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import type { SeededRandom } from "../support/seeded-random.ts";
import { watchConnection } from "../support/watched-connection.ts";

export type CoordinatorProcess = {
  readonly coordinator: Coordinator;
  readonly isDead: boolean;
  /** Resolves when it is gone, with all its connections. */
  readonly death: Promise<void>;
  /** It dies before it carries out the statement after that many. */
  killAfter(statements: number): void;
  kill(): void;
  /** An orderly end. */
  stop(): Promise<void>;
  /** Of one that is dead: ends what still waits in it, and closes its files. */
  bury(): Promise<void>;
};

export type CoordinatorProcessDeps = {
  readonly directory: string;
  readonly clock: Clock;
  readonly random: SeededRandom;
  readonly publicUrl: string;
  readonly onAdminToken: (token: string) => void;
  readonly onBug: (what: string) => void;
  /** Told everything, for the story. */
  readonly tell: (what: string) => void;
  /** Told at once when it died. */
  readonly onDeath: () => void;
};

/** Of `rolloutTopic`. */
const FOLLOWERS_TOPIC = "rollout ";

const NO_BLOBS: BlobStore = {
  beginWrite: () => Promise.reject(new Error("nobody uploads here")),
  open: () => Bun.file("/dev/null"),
  remove: () => Promise.reject(new Error("nobody deletes here")),
};

const NO_HTTP = {
  openBody: () => Promise.reject(new Error("nobody asks foreign caches here")),
  postBody: () => Promise.reject(new Error("nobody has a webhook here")),
};

export async function startCoordinatorProcess(deps: CoordinatorProcessDeps): Promise<CoordinatorProcess> {
  const directory = openDataDirectory(deps.directory);
  const { promise: death, resolve: announceDeath } = Promise.withResolvers<void>();
  const died = new AbortController();
  const buried = new AbortController();
  const connection = openConnection(directory.databaseFile);
  // A process that is killed loses nothing that was written, so there is no disk to wait for.
  connection.run("pragma synchronous = off");
  let isDead = false;
  let statementsLeft = Number.POSITIVE_INFINITY;
  const die = () => {
    if (isDead) return;
    isDead = true;
    if (connection.inTransaction) connection.run("rollback");
    directory[Symbol.dispose]();
    died.abort(new Error("the coordinator was killed"));
    announceDeath();
    deps.onDeath();
  };
  watchConnection(connection, () => {
    statementsLeft -= 1;
    if (statementsLeft < 0) die();
    if (isDead) throw new Error("the coordinator was killed");
  });
  const coordinator = await createCoordinator({
    database: useConnection(connection),
    blobs: NO_BLOBS,
    version: NIXDEPLOY_VERSION,
    isServing: true,
    http: NO_HTTP,
    clock: mortalClock(deps.clock, { death: died.signal, burial: buried.signal }),
    // Keys and ids must differ from those of the process before.
    random: { bytes: deps.random.bytes, fraction: deps.random.fraction },
    log: createBugLogger(deps, () => isDead),
    publicUrl: () => deps.publicUrl,
    writeAdminToken: async (token) => deps.onAdminToken(token),
  });
  loseWakeUps(coordinator, deps.random);
  return {
    coordinator,
    death,
    get isDead() {
      return isDead;
    },
    killAfter(statements) {
      statementsLeft = statements;
    },
    kill: die,
    async stop() {
      if (isDead) return;
      // It may die on the way, and then its end never comes, or fails.
      const ending = dispose(coordinator).catch((error: unknown) => {
        if (!isDead) throw error;
      });
      await Promise.race([ending, death]);
      if (isDead) return;
      directory[Symbol.dispose]();
      isDead = true;
      announceDeath();
    },
    async bury() {
      if (!died.signal.aborted) return;
      buried.abort(new Error("the coordinator is buried"));
      // What waits for a signal keeps all of its coordinator in memory until it is told to stop.
      await dispose(coordinator).catch(() => {
        // Its last statements are refused like all others.
      });
      connection.close();
    },
  };
}

/** Of those for whoever follows: a signal says only when to look again, so that nothing may hang on it. */
function loseWakeUps({ services }: Coordinator, random: SeededRandom): void {
  const publish = services.bus.publish.bind(services.bus);
  Object.assign(services.bus, {
    publish(topic: string) {
      if (!topic.startsWith(FOLLOWERS_TOPIC) || random.chance(0.8)) publish(topic);
    },
  });
}

async function dispose(coordinator: Coordinator): Promise<void> {
  coordinator.beginStop();
  await coordinator[Symbol.asyncDispose]();
}

/** Whoever sleeps in a dead process wakes when it is buried, and then has no clock any more. */
function mortalClock(
  clock: Clock,
  { death, burial }: { readonly death: AbortSignal; readonly burial: AbortSignal },
): Clock {
  return {
    ...clock,
    async sleep(durationMs, signal) {
      try {
        await clock.sleep(durationMs, AbortSignal.any([signal, death]));
      } catch (error) {
        if (death.aborted) await aborted(burial);
        throw error;
      }
    },
  };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

function createBugLogger({ onBug, tell }: CoordinatorProcessDeps, isDead: () => boolean): Logger {
  const note = (message: string, fields: LogFields = {}) => {
    if (!isDead()) tell(`coordinator: ${message} ${JSON.stringify(fields)}`);
  };
  return {
    error(message, fields = {}) {
      if (!isDead()) onBug(`the coordinator says: ${message} ${JSON.stringify(fields)}`);
    },
    ...{ warn: note, info: note, debug: () => {} },
  };
}

/** The database's file, for whoever looks into it from outside. */
export function databaseFileOf(directory: string): string {
  return join(directory, "coordinator.db");
}
