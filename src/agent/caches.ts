/** The caches that a welcome names, ready to be read: those of the coordinator with the agent's credential, others without. */
import type { HttpClient } from "../http/client.ts";
import { createCoordinatorCache } from "../nix/cache/download/coordinator-cache.ts";
import { createHttpCache } from "../nix/cache/download/http-cache.ts";
import type { CacheReader } from "../nix/cache/download/nar-source.ts";
import type { Welcome } from "../protocol.ts";
import type { Clock, Random } from "../runtime.ts";

export type CachesOptions = {
  /** Without a slash at its end. */
  readonly coordinatorUrl: string;
  /** Asked at every request: each login renews it. */
  readonly credential: () => string;
  readonly http: Pick<HttpClient, "requestJson" | "openBody">;
  readonly clock: Clock;
  readonly random: Random;
};

/** In the order in which they are asked. An address that is none is passed over. */
export function openCaches(
  { cache, substituters = [] }: Pick<Welcome, "cache" | "substituters">,
  options: CachesOptions,
): readonly CacheReader[] {
  const openOwn = ({ name, path }: Pick<Welcome["cache"], "name" | "path">) =>
    createCoordinatorCache({ ...options, cacheName: name, cachePath: path });
  return [
    openOwn(cache),
    ...substituters.flatMap((substituter) => {
      if (substituter.own) return [openOwn(substituter)];
      const { name, url } = substituter;
      const isHttp = /^https?:$/.test(URL.parse(url)?.protocol ?? "");
      return isHttp ? [createHttpCache({ ...options, name, url, credential: null })] : [];
    }),
  ];
}
