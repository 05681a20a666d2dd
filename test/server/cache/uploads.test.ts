/** PUT …/nars/NARHASH: parts, continuation, and everything an upload can claim and not be. */
import { describe, expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { readdir, stat, writeFile } from "node:fs/promises";
import { constants, zstdCompressSync } from "node:zlib";
import { UPLOAD_PART_BYTES_MAX, uploadAnswerSchema } from "../../../src/api/caches.ts";
import { problemSchema } from "../../../src/api/problem.ts";
import { formatHashNix32 } from "../../../src/nix/hash.ts";
import {
  encodeNar,
  encodeNarDirectoryEnd,
  encodeNarDirectoryStart,
  encodeNarEntryEnd,
  encodeNarEntryStart,
  encodeNarMagic,
  encodeNarRegularStart,
  encodeNarSymlink,
} from "../../../src/nix/nar/nar-writer.ts";
import type { BlobStore } from "../../../src/server/cache/blob-store.ts";
import { createTestCoordinator, type TestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath, fileHashOf, narHashOf, type TinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const MEBIBYTE = 1024 * 1024;
const ID = "0123456789abcdfg";
const SMALL = createTinyPath("small");
const noise = (sizeBytes: number) => randomFillSync(new Uint8Array(sizeBytes));
const incoming = async (server: TestCoordinator) => await readdir(`${server.directory}/nars/incoming`);

async function offsetOf(answer: Response, status = 200): Promise<number> {
  expect(answer.status).toBe(status);
  return uploadAnswerSchema.parse(await answer.json()).offset;
}

async function isStored(server: TestCoordinator, path: TinyPath): Promise<boolean> {
  const answer = await server.fetch("caches/default/paths", { json: { paths: [path.published] } });
  return answer.ok;
}

/** What a pusher sends for these NAR bytes, whatever they are. */
function pathOf(nar: Uint8Array, file: Uint8Array = zstdCompressSync(nar)): TinyPath {
  const narHash = narHashOf(nar);
  const fileHash = fileHashOf(file);
  return {
    ...SMALL,
    nar,
    narHash,
    file,
    fileHash,
    published: { ...SMALL.published, narHash, fileHash, narSizeBytes: nar.length },
  };
}

describe("a whole NAR", () => {
  test("in one part", async () => {
    await using server = await createTestCoordinator();
    expect(await offsetOf(await server.upload(SMALL))).toBe(SMALL.file.length);
    expect(await incoming(server)).toEqual([]);
    expect(await isStored(server, SMALL)).toBe(true);
  });

  test("in many parts, the last of them empty", async () => {
    await using server = await createTestCoordinator();
    const path = createTinyPath("noise", { contents: noise(300_000) });
    const { file } = path;
    let offset = 0;
    while (offset < file.length) {
      const body = file.subarray(offset, offset + 70_000);
      const answer = await server.upload(path, { upload: ID, offset, body, fileHash: null });
      offset = await offsetOf(answer);
    }
    expect(await incoming(server)).toHaveLength(1);
    expect(await isStored(server, path)).toBe(false);
    const last = await server.upload(path, { upload: ID, offset, body: new Uint8Array(0) });
    expect(await last.json()).toEqual({ offset: file.length, complete: true });
    expect(await isStored(server, path)).toBe(true);
  });

  test("twice, under other ids", async () => {
    await using server = await createTestCoordinator();
    expect((await server.upload(SMALL)).status).toBe(200);
    expect((await server.upload(SMALL)).status).toBe(200);
    expect(await isStored(server, SMALL)).toBe(true);
  });

  test("of every kind of file system object", async () => {
    await using server = await createTestCoordinator();
    const contents = noise(70_000);
    const file = { type: "regular", executable: true, contents } as const;
    const entries = new Map<string, Parameters<typeof encodeNar>[0]>([
      ["bin", { type: "directory", entries: new Map([["run", file]]) }],
      ["link", { type: "symlink", target: "bin/run" }],
      ["empty", { type: "directory", entries: new Map() }],
    ]);
    const path = pathOf(Buffer.concat([...encodeNar({ type: "directory", entries })]));
    expect((await server.upload(path)).status).toBe(200);
    expect(await isStored(server, path)).toBe(true);
  });

  test("with a window of 16 MiB, and in several frames", async () => {
    await using server = await createTestCoordinator();
    const { nar } = createTinyPath("noise", { contents: noise(100_000) });
    const wide = zstdCompressSync(nar, { params: { [constants.ZSTD_c_windowLog]: 24 } });
    const frames = Buffer.concat([zstdCompressSync(nar.subarray(0, 500)), zstdCompressSync(nar.subarray(500))]);
    for (const file of [wide, frames]) {
      const path = pathOf(nar, file);
      expect((await server.upload(path)).status).toBe(200);
      expect(await isStored(server, path)).toBe(true);
    }
  });
});

describe("a part out of place", () => {
  const path = createTinyPath("noise", { contents: noise(200_000) });
  const first = { upload: ID, body: path.file.subarray(0, 1_000), fileHash: null };

  test("is answered with the offset to go on from", async () => {
    await using server = await createTestCoordinator();
    await server.upload(path, first);
    for (const offset of [0, 999, 1_001]) {
      expect(await offsetOf(await server.upload(path, { ...first, offset }), 409)).toBe(1_000);
    }
    const rest = { upload: ID, offset: 1_000, body: path.file.subarray(1_000) };
    expect((await server.upload(path, rest)).status).toBe(200);
  });

  test("of an upload that nobody knows begins anew", async () => {
    await using server = await createTestCoordinator();
    expect(await offsetOf(await server.upload(path, { ...first, offset: 1_000 }), 409)).toBe(0);
    expect(await incoming(server)).toEqual([]);
  });

  test("after a restart begins anew, and no half file is left", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await server.upload(path, first);
    expect(await incoming(server)).toHaveLength(1);
    await server.restart();
    expect(await incoming(server)).toEqual([]);
    expect(await offsetOf(await server.upload(path, { ...first, offset: 1_000 }), 409)).toBe(0);
    expect((await server.upload(path, { upload: ID })).status).toBe(200);
    expect(await isStored(server, path)).toBe(true);
  });

  test("of another NAR is refused, and harms nothing", async () => {
    await using server = await createTestCoordinator();
    await server.upload(path, first);
    expect((await server.upload(SMALL, { upload: ID, offset: 1_000 })).status).toBe(400);
    expect((await server.upload(path, { upload: ID, offset: 1_000, body: path.file.subarray(1_000) })).status).toBe(
      200,
    );
  });

  test("of two uploads that begin at once under one id, one goes on", async () => {
    await using server = await createTestCoordinator();
    const answers = await Promise.all([server.upload(path, first), server.upload(path, first)]);
    expect(answers.map(({ status }) => status).toSorted()).toEqual([200, 400]);
    const rest = { upload: ID, offset: 1_000, body: path.file.subarray(1_000) };
    expect((await server.upload(path, rest)).status).toBe(200);
    expect(await incoming(server)).toEqual([]);
  });
});

describe("a connection that breaks in the middle of a part", () => {
  const path = createTinyPath("noise", { contents: noise(200_000) });

  async function sendBrokenPart(server: TestCoordinator, breakAfterBytes: number): Promise<void> {
    const connection = new AbortController();
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent >= breakAfterBytes) {
          connection.abort();
          controller.error(new DOMException("The connection was closed.", "AbortError"));
          return;
        }
        controller.enqueue(path.file.subarray(sent, sent + 10_000));
        sent += 10_000;
      },
    });
    const query = `upload=${ID}&offset=0&narSize=${path.nar.length}`;
    await server.fetch(`caches/default/nars/${formatHashNix32(path.narHash)}?${query}`, {
      method: "PUT",
      body,
      signal: connection.signal,
    });
  }

  test("continues where the coordinator says", async () => {
    await using server = await createTestCoordinator();
    await sendBrokenPart(server, 50_000);
    const offset = await offsetOf(await server.upload(path, { upload: ID, fileHash: null }), 409);
    expect(offset).toBe(50_000);
    expect((await server.upload(path, { upload: ID, offset, body: path.file.subarray(offset) })).status).toBe(200);
    expect(await isStored(server, path)).toBe(true);
  });

  test("is not called a bug of ours", async () => {
    await using server = await createTestCoordinator();
    await sendBrokenPart(server, 10_000);
    expect(server.logged.filter(({ level }) => level === "error")).toEqual([]);
  });

  test("is forgotten after a while, and its file is gone", async () => {
    await using server = await createTestCoordinator();
    await sendBrokenPart(server, 10_000);
    await server.clock.advance(16 * 60_000);
    expect(await incoming(server)).toHaveLength(1);
    expect((await server.upload(SMALL)).status).toBe(200);
    expect(await incoming(server)).toEqual([]);
    expect(await offsetOf(await server.upload(path, { upload: ID, offset: 10_000 }), 409)).toBe(0);
  });
});

describe("what is not what it claims to be is refused and leaves nothing", () => {
  const { nar, file, narHash } = SMALL;
  const symlink = encodeNarSymlink("x");
  const unsorted = Buffer.concat([
    encodeNarMagic(),
    encodeNarDirectoryStart(),
    ...["b", "a"].flatMap((name) => [encodeNarEntryStart(name), symlink, encodeNarEntryEnd()]),
    encodeNarDirectoryEnd(),
  ]);
  const withChecksum = zstdCompressSync(nar, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const otherHash = narHashOf(new Uint8Array(1));
  const cases: readonly (readonly [what: string, path: TinyPath, why: string])[] = [
    ["nothing at all", pathOf(nar, new Uint8Array(0)), "end is missing"],
    ["half a zstd frame", pathOf(nar, file.subarray(0, file.length >> 1)), "end is missing"],
    ["a zstd frame without its last byte", pathOf(nar, file.subarray(0, -1)), "end is missing"],
    ["a zstd frame without its checksum", pathOf(nar, withChecksum.subarray(0, -4)), "end is missing"],
    ["garbage", pathOf(nar, noise(500)), "not valid zstd"],
    ["garbage behind the frame", pathOf(nar, Buffer.concat([file, noise(100)])), "no zstd frame"],
    ["an empty frame", pathOf(nar, zstdCompressSync(new Uint8Array(0))), "ends after 0"],
    ["no NAR", pathOf(noise(500)), ""],
    ["bytes behind the NAR", pathOf(Buffer.concat([nar, new Uint8Array(8)])), "after its end"],
    ["half a NAR", pathOf(nar.subarray(0, -8)), "ends after"],
    ["entries out of order", pathOf(unsorted), ""],
    ["another NarHash", { ...SMALL, narHash: otherHash }, "NarHash"],
    ["another FileHash", { ...SMALL, fileHash: fileHashOf(new Uint8Array(1)) }, "hash"],
    ["a NarSize that is too small", { ...SMALL, nar: nar.subarray(0, -1) }, "larger than"],
    ["a NarSize that is too large", { ...SMALL, nar: Buffer.concat([nar, nar]) }, "ends after"],
  ];
  for (const [what, path, why] of cases) {
    test(what, async () => {
      await using server = await createTestCoordinator();
      const answer = await server.upload(path);
      expect(answer.status).toBe(422);
      const { title } = problemSchema.parse(await answer.json());
      expect(title).toStartWith("cannot store the NAR: ");
      expect(title).toContain(why);
      expect(await incoming(server)).toEqual([]);
      expect(
        await isStored(server, { ...path, published: { ...path.published, narHash, fileHash: path.fileHash } }),
      ).toBe(false);
    });
  }

  test("a window of 32 MiB", async () => {
    await using server = await createTestCoordinator();
    const contents = new Uint8Array(40 * MEBIBYTE);
    const big = Buffer.concat([...encodeNar({ type: "regular", executable: false, contents })]);
    const wide = zstdCompressSync(big, { params: { [constants.ZSTD_c_windowLog]: 25 } });
    const answer = await server.upload(pathOf(big, wide));
    expect(answer.status).toBe(422);
    expect(problemSchema.parse(await answer.json()).title).toContain("at most 16 MiB");
  });

  test("1 GiB of zeros that claims to be small is given up early", async () => {
    await using server = await createTestCoordinator();
    const zeros = zstdCompressSync(new Uint8Array(16 * MEBIBYTE));
    const start = Buffer.concat([
      encodeNarMagic(),
      encodeNarRegularStart({ sizeBytes: 1024 * MEBIBYTE, executable: false }),
    ]);
    const bomb = Buffer.concat([zstdCompressSync(start), ...Array.from({ length: 64 }, () => zeros)]);
    expect(bomb.length).toBeLessThan(MEBIBYTE);
    const before = process.memoryUsage.rss();
    const startedMs = performance.now();
    const answer = await server.upload({ ...pathOf(nar, bomb), nar: new Uint8Array(MEBIBYTE) });
    expect(answer.status).toBe(422);
    expect(problemSchema.parse(await answer.json()).title).toContain("larger than the 1048576 bytes it claims");
    expect(performance.now() - startedMs).toBeLessThan(1_000);
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MEBIBYTE);
  });

  test("an upload that was refused can be tried again under its id", async () => {
    await using server = await createTestCoordinator();
    expect((await server.upload(SMALL, { upload: ID, body: noise(100) })).status).toBe(422);
    expect((await server.upload(SMALL, { upload: ID })).status).toBe(200);
  });
});

describe("the request itself", () => {
  const good = `upload=${ID}&offset=0&narSize=${SMALL.nar.length}`;
  const hash = formatHashNix32(SMALL.narHash);
  const cases: readonly (readonly [what: string, url: string, status: number])[] = [
    ["no upload id", `caches/default/nars/${hash}?offset=0&narSize=5`, 400],
    ["an upload id that is a path", `caches/default/nars/${hash}?upload=../../../../../x&offset=0&narSize=5`, 400],
    ["no size", `caches/default/nars/${hash}?upload=${ID}&offset=0`, 400],
    ["a negative offset", `caches/default/nars/${hash}?upload=${ID}&offset=-1&narSize=5`, 400],
    ["an offset that is no number", `caches/default/nars/${hash}?upload=${ID}&offset=x&narSize=5`, 400],
    ["a hash that is none", `caches/default/nars/xyz?${good}`, 400],
    ["a file hash that is none", `caches/default/nars/${hash}?${good}&fileHash=xyz`, 400],
    ["a cache that is none", `caches/nothing/nars/${hash}?${good}`, 404],
  ];
  for (const [what, url, status] of cases) {
    test(what, async () => {
      await using server = await createTestCoordinator();
      expect((await server.fetch(url, { method: "PUT", body: SMALL.file })).status).toBe(status);
      expect(await incoming(server)).toEqual([]);
    });
  }

  for (const saysLength of [true, false]) {
    test(`a part that is too large${saysLength ? "" : " and does not say so"}`, async () => {
      await using server = await createTestCoordinator();
      const contents = noise(UPLOAD_PART_BYTES_MAX);
      const large = Buffer.concat([...encodeNar({ type: "regular", executable: false, contents })]);
      const path = pathOf(large, zstdCompressSync(large, { params: { [constants.ZSTD_c_compressionLevel]: 1 } }));
      const answer = await server.fetch(
        `caches/default/nars/${formatHashNix32(path.narHash)}?upload=${ID}&offset=0&narSize=${large.length}`,
        {
          method: "PUT",
          body: new Blob([path.file]).stream(),
          headers: saysLength ? { "content-length": String(path.file.length) } : {},
        },
      );
      expect(answer.status).toBe(400);
      expect(problemSchema.parse(await answer.json()).title).toContain("larger than 33554432 bytes");
      expect(await incoming(server)).toEqual([]);
    });
  }
});

test("a sender that falls silent is given up, and may go on later", async () => {
  await using server = await createTestCoordinator();
  const path = createTinyPath("noise", { contents: noise(200_000) });
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(path.file.subarray(0, 10_000)),
  });
  const silent = server.upload(path, { upload: ID, body, fileHash: null });
  await waitFor("what came before the silence to be written", async () => {
    const [name] = await incoming(server);
    return name !== undefined && (await stat(`${server.directory}/nars/incoming/${name}`)).size === 10_000;
  });
  expect((await server.upload(path, { upload: ID, offset: 10_000, fileHash: null })).status).toBe(503);
  await server.clock.advance(61_000);
  expect((await silent).status).toBe(503);
  const rest = { upload: ID, offset: 10_000, body: path.file.subarray(10_000) };
  expect((await server.upload(path, rest)).status).toBe(200);
});

test("whichever call to the disk fails: an answer that says so, nothing left behind, and the next try works", async () => {
  const path = createTinyPath("noise", { contents: noise(200_000) });
  for (let failingCall = 1; ; failingCall += 1) {
    const disk = createFailingDisk(failingCall);
    await using server = await createTestCoordinator({ wrapBlobs: disk.wrap });
    const first = await server.upload(path, { upload: ID, body: path.file.subarray(0, 1_000), fileHash: null });
    const rest = { upload: ID, offset: 1_000, body: path.file.subarray(1_000) };
    const last = first.ok ? await server.upload(path, rest) : first;
    if (!disk.failed) {
      expect(last.status).toBe(200);
      expect(failingCall).toBeGreaterThan(4);
      return;
    }
    expect(last.status).toBe(507);
    expect(problemSchema.parse(await last.json())).toMatchObject({ hint: expect.stringContaining("disk is full") });
    expect(await incoming(server)).toEqual([]);
    expect(await isStored(server, path)).toBe(false);
    expect((await server.upload(path, { upload: ID })).status).toBe(200);
    expect(await isStored(server, path)).toBe(true);
    server.logged.length = 0;
  }
});

/** A disk whose n-th call fails once with ENOSPC. */
function createFailingDisk(failingCall: number) {
  let calls = 0;
  const count = () => {
    calls += 1;
    if (calls === failingCall) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  };
  const wrap = (blobs: BlobStore): BlobStore => ({
    ...blobs,
    async beginWrite(name) {
      count();
      const writer = await blobs.beginWrite(name);
      return {
        abort: writer.abort,
        async append(bytes) {
          count();
          await writer.append(bytes);
        },
        async commit(fileHash) {
          count();
          await writer.commit(fileHash);
        },
      };
    },
  });
  return {
    wrap,
    get failed() {
      return calls >= failingCall;
    },
  };
}

describe("files", () => {
  test("left behind by a killed process are removed at the start", async () => {
    await using server = await createTestCoordinator({ database: "file" });
    await writeFile(`${server.directory}/nars/incoming/123-1`, "half");
    await server.restart();
    expect(await incoming(server)).toEqual([]);
  });
});
