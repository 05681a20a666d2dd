/** The key that signs: made once, kept to its owner, and never replaced by itself. */
import { describe, expect, test } from "bun:test";
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { ensureSigningKey, signThere } from "../../../src/client/copy/signing.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { thrownBy } from "../../support/failure.ts";
import { createScriptedSide } from "../../support/scripted-side.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const MODE_BITS = 0o777;
const { signal } = new AbortController();

function ensure(path: string, made: string[] = []) {
  return ensureSigningKey(path, { hostName: "nuc", random: systemRandom, onMade: (at) => void made.push(at) });
}

describe("on this machine", () => {
  test("it is made where there is none, folders and all, for its owner alone, and found again", async () => {
    await using directory = await createTemporaryDirectory("signing");
    const path = directory.join("state/copy/signing-key");
    const made: string[] = [];
    const key = await ensure(path, made);
    expect(key.name).toBe("nuc-copy-1");
    expect((await stat(path)).mode & MODE_BITS).toBe(0o600);
    expect((await stat(directory.join("state/copy"))).mode & MODE_BITS).toBe(0o700);
    expect(formatPublicKey(publicKeyOf(await ensure(path, made)))).toBe(formatPublicKey(publicKeyOf(key)));
    expect(made).toEqual([path]);
  });

  test.each([0o640, 0o604, 0o610])("one that others may use is refused: %o", async (mode) => {
    await using directory = await createTemporaryDirectory("signing");
    const path = directory.join("key");
    await ensure(path);
    const before = await readFile(path, "utf8");
    await chmod(path, mode);
    expect(await thrownBy(ensure(path))).toMatchObject({
      kind: "host",
      message: `cannot use the signing key ${path}: others may read it`,
    });
    expect(await readFile(path, "utf8")).toBe(before);
  });

  test.each(["", "no key", "nuc-copy-1:AAAA"])("what is none is refused, and stays: %p", async (text) => {
    await using directory = await createTemporaryDirectory("signing");
    const path = directory.join("key");
    await writeFile(path, text, { mode: 0o600 });
    expect(await thrownBy(ensure(path))).toMatchObject({ kind: "host", hint: expect.stringMatching(/^Remove it/) });
    expect(await readFile(path, "utf8")).toBe(text);
  });

  test("a folder that cannot be used is said", async () => {
    await using directory = await createTemporaryDirectory("signing");
    await writeFile(directory.join("file"), "");
    expect(await thrownBy(ensure(directory.join("file/key")))).toMatchObject({
      kind: "host",
      hint: expect.stringContaining("--no-sign"),
    });
  });
});

describe("on another one", () => {
  const PATHS = [createTinyPath("system").storePath];
  const PUBLIC = formatPublicKey(publicKeyOf(secretKeyFromSeed("nuc-copy-1", new Uint8Array(32))));
  const ask = (answer: Parameters<typeof createScriptedSide>[0]) => {
    const side = createScriptedSide(answer);
    return { side, key: signThere(side, { paths: PATHS, hostName: "nuc", signal }) };
  };

  test("its public half comes back, and the paths are named as words", async () => {
    const { side, key } = ask(() => ({ stdout: `hello\nnixdeploy-public-key=${PUBLIC}\n` }));
    expect(formatPublicKey(await key)).toBe(PUBLIC);
    expect(side.ran.map(({ script }) => script.words)).toEqual([["nuc-copy-1", ...PATHS]]);
  });

  test.each([
    ["it fails after it said one", { code: 1, stdout: `nixdeploy-public-key=${PUBLIC}\n`, stderr: "no nix" }, "no nix"],
    ["it says none", { stdout: "", stderr: "" }, "the script ended with 0"],
    ["it says something else", { stdout: "nixdeploy-public-key=x\n" }, "the script ended with 0"],
    ["a signal ends it", { code: null }, "the script ended with a signal"],
  ])("nothing is taken for signed when %s", async (_, answer, why) => {
    expect(await thrownBy(ask(() => answer).key)).toMatchObject({
      kind: "host",
      message: `cannot have alice@nuc sign: ${why}`,
    });
  });
});
