/**
 * Request bodies in pieces, so that one sees them move: by undici, which is loaded at the first one because it takes
 * 14 MB. Under Bun the name `undici` is a stub; the real one is installed as `undici-real`.
 */
import { Readable } from "node:stream";
import type { Dispatcher } from "undici-real";
import type { NetworkSettings } from "./settings.ts";
import type { SilenceLimit } from "./silence.ts";

/** Each piece that the system takes is progress; a body that is no longer needs none of this. */
export const PIECE_BYTES = 64 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;

export type PieceSender = {
  /** @throws what undici throws, and the limit's reason */
  send(outgoing: OutgoingPieces, limit: SilenceLimit): Promise<Incoming>;
  close(): Promise<void>;
};

export type OutgoingPieces = {
  readonly url: URL;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer;
};

/** An answer before anything is made of it. */
export type Incoming = {
  readonly status: number;
  readonly contentType: string | null;
  readonly location: string | null;
  readonly body: AsyncIterable<Uint8Array> | null;
};

/** One pool of connections for each way out: directly, or through a proxy. */
export function createPieceSender(
  { findProxy, authorities }: NetworkSettings,
  socketPath: string | undefined,
): PieceSender {
  const ca = authorities === null ? {} : { ca: authorities };
  const pools = new Map<string | null, Promise<Dispatcher>>();
  const createPool = async (proxy: string | null): Promise<Dispatcher> => {
    const { Agent, ProxyAgent } = await import("undici-real");
    return proxy === null || socketPath !== undefined
      ? new Agent({
          connect: { timeout: CONNECT_TIMEOUT_MS, ...ca, ...(socketPath === undefined ? {} : { socketPath }) },
        })
      : new ProxyAgent({ uri: proxy, requestTls: { timeout: CONNECT_TIMEOUT_MS, ...ca }, proxyTls: ca });
  };
  const poolFor = async (url: URL): Promise<Dispatcher> => {
    const proxy = findProxy(url);
    const pool = pools.get(proxy) ?? createPool(proxy);
    pools.set(proxy, pool);
    return await pool;
  };
  return {
    send: async (outgoing, limit) => await sendInPieces(await poolFor(outgoing.url), outgoing, limit),
    async close(): Promise<void> {
      await Promise.all([...pools.values()].map(async (pool) => (await pool).destroy()));
    },
  };
}

async function sendInPieces(dispatcher: Dispatcher, outgoing: OutgoingPieces, limit: SilenceLimit): Promise<Incoming> {
  const { url, method, headers, bytes } = outgoing;
  const { request } = await import("undici-real");
  const answer = await request(url, {
    dispatcher,
    method,
    headers: { ...headers, "content-length": String(bytes.length) },
    body: toPieces(bytes, limit),
    signal: limit.signal,
  });
  const header = (name: string) => [answer.headers[name] ?? null].flat()[0] ?? null;
  return {
    status: answer.statusCode,
    contentType: header("content-type"),
    location: header("location"),
    body: answer.body,
  };
}

/** So that one sees it move. */
function toPieces(bytes: Buffer, limit: SilenceLimit): Readable {
  function* cut() {
    for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
      limit.progressed();
      yield bytes.subarray(from, from + PIECE_BYTES);
    }
  }
  return Readable.from(cut(), { objectMode: true, highWaterMark: 1 });
}
