/**
 * A cache of a coordinator: any cache over HTTP (`http-cache.ts`), and the plan call for the narinfos of a whole closure.
 * Trusts nothing that it passes on.
 */
import { planAnswerSchema } from "../../../api/caches.ts";
import { NixdeployError } from "../../../errors.ts";
import type { HttpClient } from "../../../http/client.ts";
import { HttpFailure } from "../../../http/failure.ts";
import type { CacheName } from "../../../names.ts";
import type { Clock, Random } from "../../../runtime.ts";
import type { NarInfo } from "../../narinfo.ts";
import type { StorePath } from "../../store-path.ts";
import { createHttpCache, readAnswered } from "./http-cache.ts";
import type { CacheReader } from "./nar-source.ts";
import { createPatience, DENIED_MAX_MS } from "./patience.ts";

/** A coordinator that has to read 3,000 narinfos answers in well under a second; this is for slow lines. */
const PLAN_SILENCE_MAX_MS = 2 * 60_000;

export type CoordinatorCacheOptions = {
  /** Without a slash at its end. */
  readonly coordinatorUrl: string;
  readonly cacheName: CacheName;
  /** Below the coordinator's URL, such as `/cache/default`. */
  readonly cachePath: string;
  /** Asked at every request: each login renews it. */
  readonly credential: () => string;
  readonly http: Pick<HttpClient, "requestJson" | "openBody">;
  readonly clock: Clock;
  readonly random: Random;
};

export function createCoordinatorCache(options: CoordinatorCacheOptions): CacheReader {
  const url = `${options.coordinatorUrl}${options.cachePath}`;
  return {
    ...createHttpCache({ ...options, name: options.cacheName, url }),
    plan: (storePath, signal) => plan(storePath, signal, options),
  };
}

async function plan(
  storePath: StorePath,
  signal: AbortSignal,
  options: CoordinatorCacheOptions,
): Promise<readonly NarInfo[] | null> {
  const patience = createPatience({ ...options, signal });
  const deniedPatience = createPatience({ ...options, signal, maxMs: DENIED_MAX_MS });
  for (;;) {
    try {
      const { answer } = await options.http.requestJson({
        method: "POST",
        url: `${options.coordinatorUrl}/api/v1/caches/${encodeURIComponent(options.cacheName)}/plan`,
        token: options.credential(),
        body: { storePath },
        schema: planAnswerSchema,
        isIdempotent: true,
        silenceMaxMs: PLAN_SILENCE_MAX_MS,
        signal,
      });
      return answer.narInfos.map((text) => readAnswered(text, "the plan that the cache sent"));
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof NixdeployError)) throw error;
      if (error.kind === "not-found") return null;
      const isAway = error.kind === "unreachable" || (error instanceof HttpFailure && error.isForeign);
      const mayHeal = isAway ? patience : error.kind === "denied" ? deniedPatience : null;
      if (mayHeal === null || !(await mayHeal.pause())) throw error;
    }
  }
}
