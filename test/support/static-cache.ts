/**
 * A binary cache of somebody else: a folder as `nix copy --to file://…` fills it, with a key of its own, over HTTP. It can
 * be switched off, and made slow.
 */
import { join } from "node:path";
import type { Builder } from "./builder.ts";

const SLOW_ANSWER_MS = 300;

export type StaticCache = AsyncDisposable & {
  readonly url: string;
  readonly publicKey: string;
  /** Paths that were asked for, such as `/HASH.narinfo`. */
  readonly requests: string[];
  /** What it does with each request. Default "answers". */
  mood: "answers" | "fails" | "is slow";
  /** With the whole closure, signed. */
  add(storePath: string): Promise<void>;
};

export async function startStaticCache(builder: Builder, name: string): Promise<StaticCache> {
  const directory = join(builder.directory, `cache-${name}`);
  const key = await builder.generateKey(name);
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const { pathname } = new URL(request.url);
      cache.requests.push(pathname);
      if (cache.mood === "is slow") await Bun.sleep(SLOW_ANSWER_MS);
      const file = Bun.file(join(directory, pathname));
      const status = cache.mood === "fails" ? 503 : (await file.exists()) ? 200 : 404;
      return new Response(status === 200 ? file : null, { status });
    },
  });
  const cache: StaticCache = {
    url: server.url.href.replace(/\/$/, ""),
    publicKey: key.publicKey,
    requests: [],
    mood: "answers",
    async add(storePath) {
      const to = `file://${directory}?secret-key=${key.secretKeyFile}&compression=zstd`;
      await builder.run(["nix", "copy", "--to", to, storePath]);
    },
    async [Symbol.asyncDispose]() {
      await server.stop(true);
    },
  };
  return cache;
}
