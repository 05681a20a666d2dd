/**
 * A cache over real HTTP whose answers a test decides, byte by byte: it can cut a connection after any number of them,
 * answer with any status, ignore ranges, or serve other bytes than it announced. Serves TinyPaths as `nar/HASH.nar.zst`.
 */
import { createServer, type Socket } from "node:net";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { formatNarInfo, type NarInfo } from "../../src/nix/narinfo.ts";
import { signPathInfo } from "../../src/nix/signature.ts";
import type { SecretKey } from "../../src/nix/signing-key.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import type { TinyPath } from "./tiny-path.ts";

export type FileRequest = {
  /** Counted from 0 over all requests for NAR files. */
  readonly index: number;
  readonly path: string;
  readonly rangeStart: number;
  readonly token: string | null;
};

/** What to do instead of answering well. */
export type FileFault = {
  readonly status?: number;
  /** Closes the connection after so many bytes of the body. */
  readonly cutAfterBytes?: number;
  readonly ignoreRange?: boolean;
  readonly etag?: string;
  /** A login page with status 200, as networks give it to who has not logged in. */
  readonly isPage?: boolean;
};

export type FaultyCache = AsyncDisposable & {
  /** Of the coordinator; the cache is at `/cache/default`. */
  readonly url: string;
  readonly requests: FileRequest[];
  readonly files: Map<string, Uint8Array>;
  /** Null: a good answer. */
  decide: (request: FileRequest) => FileFault | null;
  /** So many plan calls are answered by a login page. */
  planPages: number;
  /** The answer to the plan call; null: 404. */
  plan: (storePath: string) => readonly string[] | null;
};

export async function startFaultyCache(paths: readonly TinyPath[] = []): Promise<FaultyCache> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    let text = "";
    socket.on("data", (data) => {
      text += data.toString("latin1");
      const head = text.indexOf("\r\n\r\n");
      const length = Number(/content-length: *(\d+)/i.exec(text)?.[1] ?? 0);
      if (head === -1 || text.length < head + 4 + length) return;
      answer(cache, socket, { head: text.slice(0, head), body: text.slice(head + 4) });
      text = "";
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const cache: FaultyCache = {
    url: `http://127.0.0.1:${port}`,
    requests: [],
    files: new Map(paths.map((path) => [`/cache/default/${narUrlOf(path)}`, path.file])),
    decide: () => null,
    planPages: 0,
    plan: () => null,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return cache;
}

export function narUrlOf(path: TinyPath): string {
  return `nar/${formatHashNix32(path.fileHash)}.nar.zst`;
}

/** The narinfo of a path, signed. */
export function narInfoOf(path: TinyPath, key: SecretKey, changes: Partial<NarInfo> = {}): NarInfo {
  const info: NarInfo = {
    storePath: path.storePath,
    url: narUrlOf(path),
    compression: "zstd",
    fileHash: path.fileHash,
    fileSizeBytes: path.file.length,
    narHash: path.narHash,
    narSizeBytes: path.nar.length,
    references: path.references,
    deriver: null,
    signatures: [],
    contentAddress: null,
    ...changes,
  };
  return { ...info, signatures: changes.signatures ?? [signPathInfo(info, key)] };
}

/** Plans as the coordinator makes them, for any of these paths: all of them, which contains every closure. */
export function planOf(infos: readonly NarInfo[]): (storePath: string) => readonly string[] | null {
  const known = new Set<StorePath | string>(infos.map((info) => info.storePath));
  return (storePath) => (known.has(storePath) ? infos.map(formatNarInfo) : null);
}

const CUT_DELAY_MS = 5;

type Incoming = { readonly head: string; readonly body: string };

function answer(cache: FaultyCache, socket: Socket, incoming: Incoming): void {
  if (incoming.head.startsWith("POST ")) answerPlan(cache, socket, incoming.body);
  else answerFile(cache, socket, incoming.head);
}

function answerPlan(cache: FaultyCache, socket: Socket, body: string): void {
  if (cache.planPages > 0) {
    cache.planPages -= 1;
    sendPage(socket);
    return;
  }
  const { storePath }: { storePath: string } = JSON.parse(body);
  const narInfos = cache.plan(storePath);
  const found = narInfos === null ? { title: `no narinfo for ${storePath}`, status: 404 } : { narInfos };
  const type = narInfos === null ? "application/problem+json" : "application/json";
  send(socket, narInfos === null ? 404 : 200, { "content-type": type }, Buffer.from(JSON.stringify(found)));
}

function answerFile(cache: FaultyCache, socket: Socket, head: string): void {
  const [, path = ""] = /^\w+ (\S+)/.exec(head) ?? [];
  const request: FileRequest = {
    index: cache.requests.length,
    path,
    rangeStart: Number(/^range: *bytes=(\d+)-/im.exec(head)?.[1] ?? 0),
    token: /^authorization: *bearer (\S+)/im.exec(head)?.[1] ?? null,
  };
  cache.requests.push(request);
  const fault = cache.decide(request) ?? {};
  const file = cache.files.get(path);
  const status = fault.status ?? (file === undefined ? 404 : 200);
  if (fault.isPage === true) {
    sendPage(socket);
    return;
  }
  if (file === undefined || status !== 200) {
    send(socket, status, {}, Buffer.from("no"));
    return;
  }
  const etag = fault.etag ?? '"tiny"';
  const isRange = request.rangeStart > 0 && fault.ignoreRange !== true;
  const start = isRange ? request.rangeStart : 0;
  const range = `bytes ${start}-${file.length - 1}/${file.length}`;
  const headers = { etag, "accept-ranges": "bytes", ...(isRange ? { "content-range": range } : {}) };
  send(socket, isRange ? 206 : 200, headers, file.subarray(start), fault.cutAfterBytes);
}

function sendPage(socket: Socket): void {
  send(socket, 200, { "content-type": "text/html; charset=utf-8" }, Buffer.from("<html>Please log in</html>"));
}

function send(
  socket: Socket,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: Uint8Array,
  cutAfterBytes?: number,
): void {
  const lines = Object.entries({ ...headers, "content-length": String(body.length) });
  const head = `HTTP/1.1 ${status} X\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
  socket.write(head);
  if (cutAfterBytes === undefined) socket.write(body);
  else {
    socket.write(body.subarray(0, cutAfterBytes));
    // Not at once: fetch drops what arrives together with the end of the connection.
    setTimeout(() => socket.destroy(), CUT_DELAY_MS);
  }
}
