/**
 * The download engine with real daemons, of each suite: what it fetches is what Nix itself takes for valid, is kept from
 * a garbage collection that runs beside it, and a large NAR costs no memory.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import { createHttpClient, type HttpClient } from "../../src/http/client.ts";
import { parseCacheName } from "../../src/names.ts";
import { createCoordinatorCache } from "../../src/nix/cache/download/coordinator-cache.ts";
import { fetchClosure } from "../../src/nix/cache/download/fetch-closure.ts";
import { connectDaemon } from "../../src/nix/daemon/connect.ts";
import type { DaemonConnection } from "../../src/nix/daemon/connection.ts";
import { narHashFromDigest } from "../../src/nix/hash.ts";
import { encodeNar } from "../../src/nix/nar/nar-writer.ts";
import type { NarInfo } from "../../src/nix/narinfo.ts";
import { createSignatureVerifier } from "../../src/nix/signature.ts";
import { publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import type { StorePath } from "../../src/nix/store-path.ts";
import { systemClock, systemRandom } from "../../src/runtime.ts";
import { type FaultyCache, narInfoOf, planOf, startFaultyCache } from "../support/faulty-cache.ts";
import { createMachine, type Machine } from "../support/machine.ts";
import { type NixDaemon, startNixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf, NIX_SUITES } from "../support/nix-versions.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath, fileHashOf, type TinyPath } from "../support/tiny-path.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const KEY = secretKeyFromSeed("fetch-1", new Uint8Array(32).fill(9));
const signal = new AbortController().signal;
/** What a process may hold of a stream at any time, whatever its size. */
const HELD_MAX_BYTES = 150 * 1024 * 1024;
const PIECE_BYTES = 4 * 1024 * 1024;

let directory: TemporaryDirectory;
let device: Machine;
let daemon: NixDaemon;
let http: HttpClient;
let cache: FaultyCache;

beforeAll(async () => {
  directory = await createTemporaryDirectory("fetch");
  http = createHttpClient({ userAgent: "test", env: {}, clock: systemClock, random: systemRandom });
  cache = await startFaultyCache();
});

afterAll(async () => {
  await cache[Symbol.asyncDispose]();
  await http[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

beforeEach(() => {
  cache.decide = () => null;
});

const connect = () =>
  connectDaemon({ signal, via: "socket", socketPath: daemon.hostSocketPath, environment: process.env });

function serve(paths: readonly TinyPath[]): void {
  for (const path of paths) cache.files.set(`/cache/default/${narInfoOf(path, KEY).url}`, path.file);
  cache.plan = planOf(paths.map((path) => narInfoOf(path, KEY)));
}

async function fetchInto(rootDaemon: DaemonConnection, storePath: StorePath) {
  const parts = { clock: systemClock, random: systemRandom };
  return await fetchClosure({
    ...parts,
    storePath,
    sources: [
      {
        reader: createCoordinatorCache({
          ...parts,
          coordinatorUrl: cache.url,
          cacheName: parseCacheName("default"),
          cachePath: "/cache/default",
          credential: () => "secret",
          http,
        }),
        verifier: createSignatureVerifier([publicKeyOf(KEY)]),
        trustedKeys: [publicKeyOf(KEY)],
      },
    ],
    rootDaemon,
    connectDaemon: connect,
    readStoreFreeBytes: async () => null,
    signal,
    onPlanned: () => {},
    onProgress: () => {},
  });
}

const isValid = async (path: StorePath) => (await device.exec(["nix-store", "--check-validity", path])).exitCode === 0;

/** A chain of paths, each of which refers to the one before and to the first. */
function chainOf(name: string, length: number): TinyPath[] {
  const paths: TinyPath[] = [];
  for (let index = 0; index < length; index += 1) {
    const references = new Set(
      [paths[0], paths.at(-1)].flatMap((path) => (path === undefined ? [] : [path.storePath])),
    );
    paths.push(createTinyPath(`${name}-${index}`, { references: [...references] }));
  }
  return paths;
}

for (const suite of NIX_SUITES) {
  describe(`into the Nix of ${suite}`, () => {
    beforeAll(async () => {
      device = await createMachine({ name: "device", directory: directory.join(suite), nix: await ensureNixOf(suite) });
      daemon = await startNixDaemon(device);
    });

    afterAll(async () => {
      await daemon[Symbol.asyncDispose]();
      await device[Symbol.asyncDispose]();
    });

    test("Nix finds the closure valid, with the signature, and its temporary roots outlast a garbage collection", async () => {
      const paths = chainOf("chain", 30);
      serve(paths);
      const top = paths.at(-1)?.storePath ?? fail();
      {
        await using rootDaemon = await connect();
        expect((await fetchInto(rootDaemon, top)).paths.length).toBe(30);
        await device.run(["nix-store", "--gc"]);
        await device.run(["nix-store", "--verify-path", ...paths.map((path) => path.storePath)]);
        expect(await device.run(["nix", "path-info", "--sigs", top])).toContain("fetch-1:");
        expect((await device.run(["nix-store", "--query", "--requisites", top])).split("\n").length).toBe(30);
      }
      await waitFor("the daemon's worker to let go", async () => {
        await device.run(["nix-store", "--gc"]);
        return !(await isValid(top));
      });
    });

    test("connections cut at many places: the store holds only whole paths, and in the end all of them", async () => {
      const flat = Array.from({ length: 6 }, (_, index) =>
        createTinyPath(`flat-${index}`, { contents: noise(200_000 + index) }),
      );
      const top = createTinyPath("cut-top", { references: flat.map((path) => path.storePath) });
      serve([...flat, top]);
      cache.decide = ({ index }) => (index % 3 === 0 ? { cutAfterBytes: 60_000 + 7_919 * (index % 11) } : null);
      await using rootDaemon = await connect();
      await fetchInto(rootDaemon, top.storePath);
      await device.run(["nix-store", "--verify-path", top.storePath, ...flat.map((path) => path.storePath)]);
    });

    test("a file that is not what was signed leaves nothing behind", async () => {
      const good = createTinyPath("good", { contents: noise(100_000) });
      const bad = createTinyPath("bad", { contents: noise(100_001), references: [good.storePath] });
      serve([good, bad]);
      const file = new Uint8Array(bad.file);
      file[50_000] = (file[50_000] ?? 0) ^ 1;
      cache.files.set(`/cache/default/${narInfoOf(bad, KEY).url}`, file);
      await using rootDaemon = await connect();
      await expect(fetchInto(rootDaemon, bad.storePath)).rejects.toThrow(bad.storePath);
      expect(await isValid(good.storePath)).toBe(true);
      expect(await isValid(bad.storePath)).toBe(false);
      // The same connection still works, and so does the next try.
      serve([good, bad]);
      await fetchInto(rootDaemon, bad.storePath);
      expect(await isValid(bad.storePath)).toBe(true);
    });

    test("a NAR of 400 MB that is 40 KB in the cache costs no memory", async () => {
      const large = createBomb("large", 400_000_000);
      cache.files.set(`/cache/default/${large.info.url}`, large.file);
      cache.plan = planOf([large.info]);
      await using rootDaemon = await connect();
      Bun.gc(true);
      const before = process.memoryUsage().rss;
      let most = before;
      const watch = setInterval(() => {
        most = Math.max(most, process.memoryUsage().rss);
      }, 10);
      await fetchInto(rootDaemon, large.info.storePath);
      clearInterval(watch);
      expect(most - before).toBeLessThan(HELD_MAX_BYTES);
      expect(await isValid(large.info.storePath)).toBe(true);
    });
  });
}

/** A path whose one file holds zeros, made piece by piece so that the test itself holds none of it. */
function createBomb(name: string, sizeBytes: number): { readonly info: NarInfo; readonly file: Uint8Array } {
  const hash = createHash("sha256");
  const frames: Uint8Array[] = [];
  let narSizeBytes = 0;
  const contents = new Uint8Array(sizeBytes);
  for (const piece of encodeNar({ type: "regular", executable: false, contents })) {
    for (let start = 0; start < piece.length; start += PIECE_BYTES) {
      const slice = piece.subarray(start, start + PIECE_BYTES);
      hash.update(slice);
      frames.push(zstdCompressSync(slice));
      narSizeBytes += slice.length;
    }
  }
  const file = new Uint8Array(Buffer.concat(frames));
  const tiny = createTinyPath(name);
  const narHash = narHashFromDigest(hash.digest());
  const changes = { fileHash: fileHashOf(file), fileSizeBytes: file.length, narHash, narSizeBytes };
  return { info: narInfoOf(tiny, KEY, changes), file };
}

function noise(length: number): Uint8Array {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, index) =>
    createHash("sha256").update(`${length} ${index}`).digest(),
  );
  return new Uint8Array(Buffer.concat(blocks).subarray(0, length));
}

function fail(): never {
  throw new Error("the chain is shorter than that");
}
