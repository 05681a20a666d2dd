/** How a machine comes to accept what was signed: by its key, by trust, as root, or perhaps not. */
import { describe, expect, test } from "bun:test";
import { readFile, stat, writeFile } from "node:fs/promises";
import type { Probe } from "../../../src/client/copy/probe.ts";
import { createLocalSide } from "../../../src/client/copy/side.ts";
import { arrangeTrust, trustLine } from "../../../src/client/copy/trust.ts";
import type { DaemonTrust } from "../../../src/nix/daemon/handshake.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { systemClock } from "../../../src/runtime.ts";
import { ALICE, createScriptedSide } from "../../support/scripted-side.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";

const KEY = publicKeyOf(secretKeyFromSeed("builder-copy-1", new Uint8Array(32)));
const { signal } = new AbortController();

type Case = {
  readonly probe?: Partial<Probe>;
  readonly trust?: DaemonTrust;
  readonly hasKey?: boolean;
  /** What is answered to "Trust the key …?"; null: nobody can be asked. */
  readonly answer?: boolean | null;
  /** The output of the script that enters the key. */
  readonly said?: string;
};

async function arrange({
  probe = {},
  trust = "not-trusted",
  hasKey = true,
  answer = null,
  said = "restarted\n",
}: Case) {
  const side = createScriptedSide(() => ({ stdout: said }));
  const questions: string[] = [];
  const notes: string[] = [];
  const acceptance = await arrangeTrust({
    ...{ side, trust, signal, probe: { ...ALICE, ...probe }, key: hasKey ? KEY : null },
    confirm: async (question) => {
      questions.push(question);
      return answer;
    },
    askSecret: async () => null,
    note: (text) => void notes.push(text),
  });
  const entered = side.ran.filter(({ script }) => script.words?.includes(trustLine(KEY)) === true);
  return { acceptance, questions: questions.length, entered: entered.map(({ script }) => script.asRoot), notes };
}

const ROOT = { uid: 0, user: "root" } as const;
const TRUSTED = { trustedKeys: `other-1:AAAA ${formatPublicKey(KEY)}` } as const;

describe("a machine accepts", () => {
  test.each<readonly [string, Case, Awaited<ReturnType<typeof arrange>>["acceptance"], number, readonly boolean[]]>([
    ["what its nix.conf trusts, without a question", { probe: TRUSTED }, "by-key", 0, []],
    ["a key that root may add", { probe: ROOT, answer: true }, "by-key", 1, [false]],
    ["a key that its user may add", { probe: { confIsWritable: true }, answer: true, said: "" }, "by-key", 1, [false]],
    ["a key by sudo", { probe: { sudo: "free" }, answer: true }, "by-key", 1, [true]],
    [
      "root's word, when the daemon still has the old nix.conf",
      { probe: { sudo: "free" }, answer: true, said: "" },
      "as-root",
      1,
      [true],
    ],
    ["root's word, when the key is not wanted", { probe: ROOT, trust: "unknown", answer: false }, "by-trust", 1, []],
    [
      "a trusted user's word, when nobody can be asked",
      { probe: { confIsWritable: true }, trust: "trusted" },
      "by-trust",
      1,
      [],
    ],
    ["a trusted user's word, where nothing is signed", { trust: "trusted", hasKey: false }, "by-trust", 0, []],
    [
      "root's word by sudo, where the file is not to be changed",
      { probe: { sudo: "free", confIsManaged: true } },
      "as-root",
      0,
      [],
    ],
    ["perhaps nothing, where there is no way", {}, "uncertain", 0, []],
    [
      "perhaps what a daemon that does not tell takes",
      { probe: { sudo: "asks", confIsManaged: true }, trust: "unknown" },
      "uncertain",
      0,
      [],
    ],
  ])("%s", async (_, how, acceptance, questions, entered) => {
    expect(await arrange(how)).toMatchObject({ acceptance, questions, entered });
  });

  test("and who trusts a person instead of the key is told so", async () => {
    expect((await arrange({ trust: "trusted", probe: { confIsManaged: true } })).notes).toEqual([
      "alice@nuc: its nix.conf does not have the key builder-copy-1; it takes alice's word",
    ]);
  });
});

describe("the key in nix.conf", () => {
  /** By the real script, on a machine whose systemd has no nix-daemon. */
  async function enter(directory: TemporaryDirectory, conf: string): Promise<void> {
    await writeFile(directory.join("systemctl"), "#!/bin/sh\nexit 3\n", { mode: 0o755 });
    const environment = { ...process.env, PATH: `${directory.path}:${process.env["PATH"]}` };
    const acceptance = await arrangeTrust({
      ...{ side: createLocalSide({ environment, clock: systemClock }), key: KEY, trust: "not-trusted", signal },
      probe: { ...ALICE, conf, confIsWritable: true },
      confirm: async () => true,
      askSecret: async () => null,
      note: () => {},
    });
    expect(acceptance).toBe("by-key");
  }

  test("stands at the end of a line of its own, once, and nothing else changes", async () => {
    await using directory = await createTemporaryDirectory("trust");
    const conf = directory.join("nix.conf");
    await writeFile(conf, "cores = 2", { mode: 0o640 });
    await enter(directory, conf);
    await enter(directory, conf);
    const lines = (await readFile(conf, "utf8")).split("\n");
    expect(lines).toEqual(["cores = 2", "# added by nixdeploy copy", trustLine(KEY), ""]);
    expect((await stat(conf)).mode & 0o777).toBe(0o640);
  });

  test("makes a file that everybody may read where there is none", async () => {
    await using directory = await createTemporaryDirectory("trust");
    const conf = directory.join("nix/nix.conf");
    await enter(directory, conf);
    expect(await readFile(conf, "utf8")).toEndWith(`\n${trustLine(KEY)}\n`);
    expect((await stat(conf)).mode & 0o777).toBe(0o644);
  });

  test("that cannot be written is an error with the line to add", async () => {
    const side = createScriptedSide(() => ({ code: 1, stderr: "mv: no space" }));
    const probe = { ...ALICE, ...ROOT };
    const arranging = arrangeTrust({
      ...{ side, probe, key: KEY, trust: "trusted", signal },
      confirm: async () => true,
      askSecret: async () => null,
      note: () => {},
    });
    expect(await arranging.catch((error: unknown) => error)).toMatchObject({
      kind: "host",
      message: "cannot trust the key builder-copy-1 on alice@nuc: mv: no space",
      details: [expect.stringContaining(trustLine(KEY)), expect.anything()],
    });
  });
});
