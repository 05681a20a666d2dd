/**
 * Composition root of the coordinator: builds its parts from a database and a blob store. Opens no port and no file by
 * itself, so that tests run the whole coordinator in their process, and `token create --data-dir` without a server.
 */
import type { HttpClient } from "../http/client.ts";
import type { Logger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import { createAuthenticator } from "./access/authentication.ts";
import { createFailedLogins } from "./access/failed-logins.ts";
import { startTokenRetention } from "./access/token-retention.ts";
import { createAgentPeaks } from "./agents/peaks.ts";
import { startPresence } from "./agents/presence.ts";
import { createAgentRegistry } from "./agents/registry.ts";
import { type AgentSession, type AgentSocket, createAgentSessions } from "./agents/session.ts";
import { createApp } from "./app.ts";
import { createBus } from "./bus.ts";
import type { BlobStore } from "./cache/blob-store.ts";
import { createKeyedLock } from "./cache/keyed-lock.ts";
import { createNarInfos } from "./cache/narinfos.ts";
import { createUploads } from "./cache/uploads.ts";
import { createForeignNarInfos } from "./completeness/foreign-narinfos.ts";
import { migrate } from "./database/migrations.ts";
import type { CoordinatorDatabase } from "./database/schema.ts";
import { saveSetting } from "./database/workspaces.ts";
import { createWriteQueue } from "./database/write-queue.ts";
import { startDeploymentRetention } from "./deployments/deployment-retention.ts";
import { createDispatcher } from "./deployments/dispatcher.ts";
import { startExpirations } from "./deployments/expirations.ts";
import { startStallWatch } from "./deployments/stalls.ts";
import { startEventRetention } from "./events/retention.ts";
import { ensureFirstStart } from "./first-start.ts";
import { startLogRetention } from "./logs/log-retention.ts";
import { createAuditor } from "./operations/audit.ts";
import { createMeters } from "./operations/metrics/meters.ts";
import { createMetrics } from "./operations/metrics/snapshot.ts";
import { createReadiness } from "./operations/readiness.ts";
import type { StoragePlaces } from "./operations/storage.ts";
import { createAttend } from "./requests/attend.ts";
import { LOOPBACK, parseTrustedProxies, type TrustedProxies } from "./requests/peer-address.ts";
import { createUnderWay } from "./requests/under-way.ts";
import { type Arrival, beginVisit, NO_VISIT, type Visit } from "./requests/visit.ts";
import { type CacheFileRoutes, createCacheFileRoutes } from "./routes/cache-files.ts";
import type { Services } from "./services.ts";
import { startWebhooks } from "./webhooks/sender.ts";
import { createRemovals } from "./workspaces/removals.ts";
import { createToldCaches } from "./workspaces/told-caches.ts";

export type CoordinatorDeps = {
  readonly database: CoordinatorDatabase;
  readonly blobs: BlobStore;
  /** For caches of others, which it asks whether they have what is to be deployed. */
  readonly http: Pick<HttpClient, "openBody" | "postBody">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The release of this program: which agents it serves depends on it. */
  readonly version: string;
  /** False where it only answers a request or two: what is due by the clock is then left to whoever serves. */
  readonly isServing: boolean;
  /** Known only once the port is bound, when none was given. */
  readonly publicUrl: () => string;
  readonly writeAdminToken: (token: string) => Promise<void>;
  /** Default: everything is in memory, and no disk is looked at. */
  readonly storage?: StoragePlaces;
  /** Whose word about addresses counts. Default: this host's. */
  readonly trustedProxies?: TrustedProxies;
};

export type Coordinator = AsyncDisposable & {
  readonly services: Services;
  /** GET and HEAD of the binary caches, for Bun.serve. */
  readonly cacheFileRoutes: CacheFileRoutes;
  /** Everything else. */
  fetch(request: Request, arrival: Arrival): Promise<Response>;
  /** It is going to stop: not ready any more, and streams end, to be taken up again elsewhere or later. */
  beginStop(): void;
  /** Resolves when no request is being answered; streams do not count. */
  idle(): Promise<void>;
  /** The request that wants to become an agent's connection, as logs will speak of it. */
  greet(request: Request, arrival: Arrival): Visit;
  openAgentSession(socket: AgentSocket, visit?: Visit): AgentSession;
};

/** Migrates the database and makes the coordinator ready for requests. */
export async function createCoordinator(deps: CoordinatorDeps): Promise<Coordinator> {
  const { database, clock, random, log, storage = null } = deps;
  await migrate(database);
  const { credentialKey } = await ensureFirstStart(deps);
  const registry = createAgentRegistry(clock);
  const bus = createBus();
  const writes = createWriteQueue(database, clock);
  const dispatcher = createDispatcher({ database, writes, registry, bus, clock, log });
  const meters = createMeters();
  const background = new AsyncDisposableStack();
  if (deps.isServing) background.use(startBackground({ ...deps, registry, bus, writes, meters }));
  const narLock = createKeyedLock();
  const removals = createRemovals({ database, blobs: deps.blobs, narLock, clock, log });
  removals.begin();
  const authenticator = createAuthenticator({ database, clock, credentialKey });
  const about = { version: deps.version, startedMs: clock.nowMs() };
  const writeDatabase = () => saveSetting(database, { name: "ready", value: new Date(clock.nowMs()).toISOString() });
  const readiness = createReadiness({ clock, storage, writeDatabase });
  const peaks = createAgentPeaks({ database, clock, registry });
  const stopping = new AbortController();
  const underWay = createUnderWay();
  const services: Services = {
    database,
    stopping: stopping.signal,
    writes,
    authenticator,
    failedLogins: createFailedLogins(clock),
    registry,
    dispatcher,
    bus,
    narInfos: createNarInfos(database),
    foreignNarInfos: createForeignNarInfos(deps),
    foreignLock: createKeyedLock(),
    uploads: createUploads({ blobs: deps.blobs, clock, narLock }),
    peaks,
    auditor: createAuditor({ database, clock, log }),
    meters,
    metrics: await createMetrics({ database, registry, peaks, clock, meters, readiness, storage, ...about }),
    readiness,
    removals,
    toldCaches: createToldCaches({ database, registry }),
    http: deps.http,
    clock,
    random,
    log,
    ...about,
    publicUrl: deps.publicUrl,
  };
  const app = createApp(services);
  const trustedProxies = deps.trustedProxies ?? parseTrustedProxies(LOOPBACK);
  const attend = createAttend({ trustedProxies, underWay, meters, random, clock, log });
  const sessions = createAgentSessions(services);
  return {
    services,
    cacheFileRoutes: createCacheFileRoutes({ services, blobs: deps.blobs, attend }),
    fetch: async (request, arrival) => await attend(request, arrival, async (visit) => await app.fetch(request, visit)),
    beginStop() {
      readiness.stop();
      stopping.abort(new Error("the coordinator stops"));
    },
    idle: () => underWay.idle(),
    greet: (request, arrival) => beginVisit(request, arrival, { trustedProxies, random }),
    openAgentSession: (socket, visit = NO_VISIT) => sessions.create(socket, visit),
    async [Symbol.asyncDispose]() {
      await background.disposeAsync();
      await sessions[Symbol.asyncDispose]();
      await dispatcher[Symbol.asyncDispose]();
      await services.uploads[Symbol.asyncDispose]();
      await removals[Symbol.asyncDispose]();
      await peaks.save();
      await database.destroy();
    },
  };
}

type BackgroundDeps = CoordinatorDeps & Pick<Services, "registry" | "bus" | "writes" | "meters">;

/** What a coordinator that serves does by itself. */
function startBackground(deps: BackgroundDeps): AsyncDisposable {
  const background = new AsyncDisposableStack();
  background.use(startExpirations(deps));
  background.use(startStallWatch(deps));
  background.use(startLogRetention(deps));
  background.use(startPresence(deps));
  background.use(startEventRetention(deps));
  background.use(startDeploymentRetention(deps));
  background.use(startTokenRetention(deps));
  background.use(startWebhooks(deps));
  return background;
}
