import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { zstdCompressSync } from "node:zlib";
import { type CacheReader, FILE_BYTES_MAX } from "../../../src/client/nix-files/cache-file.ts";
import { readSpec } from "../../../src/client/spec/spec-source.ts";
import { narHashFromDigest } from "../../../src/nix/hash.ts";
import { encodeNar, type NarTree } from "../../../src/nix/nar/nar-writer.ts";
import { formatNarInfo, type NarInfo } from "../../../src/nix/narinfo.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";
import { EXAMPLE_HASH_PART } from "../../support/deployment-example.ts";
import { failureOf } from "../../support/failure.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;
/** Not in any store of a machine that runs tests. */
const SPEC = parseStorePath(`/nix/store/${EXAMPLE_HASH_PART}-deploy.json`);
const SPEC_TEXT = JSON.stringify({ agents: { nuc: SYSTEM } });
const signal = new AbortController().signal;
const emptyCache: CacheReader = { readFile: async () => null };

function cacheWith(tree: NarTree, change: Partial<NarInfo> = {}, changeFile = (file: Uint8Array) => file): CacheReader {
  const nar = Buffer.concat([...encodeNar(tree)]);
  const file = zstdCompressSync(nar);
  const narHash = narHashFromDigest(createHash("sha256").update(nar).digest());
  const base = { storePath: SPEC, narHash, narSizeBytes: nar.length, references: [], deriver: null, signatures: [] };
  const place = {
    contentAddress: null,
    url: "nar/x.nar.zst",
    compression: "zstd",
    fileHash: null,
    fileSizeBytes: null,
  };
  const narInfo = formatNarInfo({ ...base, ...place, ...change });
  const files = new Map<string, Uint8Array>([
    [`${EXAMPLE_HASH_PART}.narinfo`, new TextEncoder().encode(narInfo)],
    ["nar/x.nar.zst", changeFile(file)],
  ]);
  return { readFile: async (path) => files.get(path) ?? null };
}

const fileTree = (text: string): NarTree => ({
  type: "regular",
  executable: false,
  contents: new TextEncoder().encode(text),
});

const read = (words: readonly string[], cwd = "/", cache = emptyCache) => readSpec({ words, cwd, cache, signal });
const agentsOf = async (run: ReturnType<typeof read>) =>
  [...(await run).spec.agents].map(([name, path]) => `${name}=${path}`);

describe("on this machine", () => {
  test("a file, a symlink to one, and pairs", async () => {
    await using directory = await createTemporaryDirectory("spec");
    await writeFile(directory.join("deploy.json"), SPEC_TEXT);
    await symlink("deploy.json", directory.join("result"));
    await symlink(SYSTEM, directory.join("system"));
    for (const words of [["deploy.json"], ["./result"], ["nuc=system"], [`nuc=${SYSTEM}`]]) {
      expect(await agentsOf(read(words, directory.path))).toEqual([`nuc=${SYSTEM}`]);
    }
    expect(await agentsOf(read(["nuc=./system", "tv=./system"], directory.path))).toHaveLength(2);
  });

  test("a pipe, as a shell's <(…) makes one; one without an end is given up", async () => {
    await using directory = await createTemporaryDirectory("spec");
    const pipe = directory.join("pipe");
    Bun.spawnSync(["mkfifo", pipe]);
    const writing = Bun.spawn(["sh", "-c", 'printf %s "$1" > "$2"', "sh", SPEC_TEXT, pipe]).exited;
    expect(await agentsOf(read([pipe]))).toEqual([`nuc=${SYSTEM}`]);
    expect(await writing).toBe(0);
    const refused = await failureOf(read(["/dev/zero"]));
    expect([refused.kind, refused.message]).toEqual([
      "refused",
      `cannot read /dev/zero: it is larger than ${FILE_BYTES_MAX} bytes`,
    ]);
  });

  test("refuses what is no spec, with a hint", async () => {
    await using directory = await createTemporaryDirectory("spec");
    await mkdir(directory.join("system"));
    await writeFile(directory.join("deploy.json"), SPEC_TEXT);
    const cases: readonly [string[], string][] = [
      [["system"], "is a directory"],
      [["missing"], "no such file"],
      [["deploy.json", "deploy.json"], "one SPEC"],
      [["deploy.json", "nuc=system"], "one SPEC"],
      [["nuc=missing"], "no such file"],
      [["nuc=deploy.json"], "not in the Nix store"],
      [["nuc="], 'no path follows the "="'],
      [[`nuc=${SYSTEM}`, `nuc=${SYSTEM}`], "named twice"],
    ];
    for (const [words, why] of cases) {
      const error = await failureOf(read(words, directory.path));
      expect([error.kind, error.message]).toEqual(["usage", expect.stringContaining(why)]);
    }
    expect((await failureOf(read(["system"], directory.path))).hint).toContain("NAME=system");
  });
});

describe("out of the cache", () => {
  test("a store path that is not here, also by a dangling symlink", async () => {
    await using directory = await createTemporaryDirectory("spec");
    await symlink(SPEC, directory.join("result"));
    const cache = cacheWith(fileTree(SPEC_TEXT));
    expect(await agentsOf(read([SPEC], "/", cache))).toEqual([`nuc=${SYSTEM}`]);
    expect(await agentsOf(read(["./result"], directory.path, cache))).toEqual([`nuc=${SYSTEM}`]);
  });

  test("neither store nor cache has it", async () => {
    const error = await failureOf(read([SPEC]));
    expect(error.kind).toBe("not-found");
    expect(error.hint).toContain(`nixdeploy push ${SPEC}`);
  });

  test.each([
    ["a directory", cacheWith({ type: "directory", entries: new Map() }), "refused", "no plain file"],
    ["a symlink", cacheWith({ type: "symlink", target: "x" }), "refused", "no plain file"],
    [
      "a file of another path",
      cacheWith(fileTree(SPEC_TEXT), { storePath: parseStorePath(SYSTEM) }),
      "remote",
      "its narinfo is that of",
    ],
    [
      "too large a file",
      cacheWith(fileTree(SPEC_TEXT), { narSizeBytes: 2 * FILE_BYTES_MAX }),
      "refused",
      "larger than",
    ],
    ["another size", cacheWith(fileTree(SPEC_TEXT), { narSizeBytes: 4_000 }), "remote", "not the one"],
    ["a bomb", cacheWith(fileTree("x".repeat(9_000)), { narSizeBytes: 500 }), "remote", "cannot be decompressed"],
    ["a cut file", cacheWith(fileTree(SPEC_TEXT), {}, (file) => file.subarray(0, -5)), "remote", "cache"],
    ["other contents", cacheWith(fileTree(SPEC_TEXT), {}, () => zstdCompressSync("x")), "remote", "not the one"],
    ["another compression", cacheWith(fileTree(SPEC_TEXT), { compression: "xz" }), "remote", "not supported"],
  ])("refuses %s", async (_what, cache, kind, why) => {
    const error = await failureOf(read([SPEC], "/", cache));
    expect([error.kind, error.message]).toEqual([kind, expect.stringContaining(why)]);
  });
});
