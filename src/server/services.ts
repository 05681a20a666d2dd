/** The coordinator's parts, made once in `coordinator.ts` and handed to whoever serves a request. */
import type { HttpClient } from "../http/client.ts";
import type { Logger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import type { Authenticator } from "./access/authentication.ts";
import type { FailedLogins } from "./access/failed-logins.ts";
import type { AgentPeaks } from "./agents/peaks.ts";
import type { AgentRegistry } from "./agents/registry.ts";
import type { Bus } from "./bus.ts";
import type { NarInfos } from "./cache/narinfos.ts";
import type { Uploads } from "./cache/uploads.ts";
import type { CompletenessDeps } from "./completeness/completeness.ts";
import type { CoordinatorDatabase } from "./database/schema.ts";
import type { WriteQueue } from "./database/write-queue.ts";
import type { Dispatcher } from "./deployments/dispatcher.ts";
import type { Auditor } from "./operations/audit.ts";
import type { Meters } from "./operations/metrics/meters.ts";
import type { Metrics } from "./operations/metrics/snapshot.ts";
import type { Readiness } from "./operations/readiness.ts";
import type { Removals } from "./workspaces/removals.ts";
import type { ToldCaches } from "./workspaces/told-caches.ts";

export type Services = CompletenessDeps & {
  readonly database: CoordinatorDatabase;
  /** Where whatever many agents may cause at once is written. */
  readonly writes: WriteQueue;
  readonly authenticator: Authenticator;
  readonly failedLogins: FailedLogins;
  readonly registry: AgentRegistry;
  readonly dispatcher: Dispatcher;
  readonly bus: Bus;
  readonly narInfos: NarInfos;
  readonly uploads: Uploads;
  readonly auditor: Auditor;
  readonly peaks: AgentPeaks;
  readonly meters: Meters;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly removals: Removals;
  readonly toldCaches: ToldCaches;
  /** Sends deliveries of webhooks. */
  readonly http: Pick<HttpClient, "postBody">;
  /** Aborted when the coordinator begins to stop: what would go on for ever ends then. */
  readonly stopping: AbortSignal;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly version: string;
  readonly startedMs: number;
  /** Base of every URL we hand out, without a slash at the end. */
  readonly publicUrl: () => string;
};
