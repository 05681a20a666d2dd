/** The parts of a release that need no binary: archives, sums and signature, targets, and what macOS will check. */
import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ArchiveEntry, createArchive } from "../../scripts/release/archive.ts";
import { checkExecutable } from "../../scripts/release/executable.ts";
import { checkMachO, signAdHoc } from "../../scripts/release/mach-o.ts";
import {
  formatSums,
  parseReleaseKey,
  SIGNATURE_NAME,
  SUMS_NAME,
  signSums,
  verifySums,
} from "../../scripts/release/signature.ts";
import { RELEASE_TARGETS } from "../../scripts/release/targets.ts";

const ROOT = join(import.meta.dir, "../..");

function inFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-release-test-"));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(command: readonly string[], cwd: string, env: Readonly<Record<string, string | undefined>> = process.env) {
  const result = Bun.spawnSync([...command], { cwd, env: { ...env }, stdin: "ignore" });
  return { exitCode: result.exitCode, stdout: result.stdout.toString(), stderr: result.stderr.toString() };
}

describe("archive", () => {
  const entries: readonly ArchiveEntry[] = [
    { name: "app-1/program", mode: 0o755, contents: Buffer.from("#!/bin/sh\necho hello\n") },
    { name: "app-1/empty", mode: 0o644, contents: Buffer.alloc(0) },
    { name: "app-1/docs/block", mode: 0o644, contents: Buffer.alloc(512, "x") },
    { name: "app-1/ümlaut", mode: 0o644, contents: Buffer.from("y") },
  ];

  test("has the same bytes whatever the order, and no time or system in its gzip header", () => {
    const archive = createArchive(entries);
    expect(createArchive([...entries].reverse()).equals(archive)).toBe(true);
    expect([...archive.subarray(0, 10)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, archive[8] ?? -1, 255]);
  });

  test("is what tar reads: names, modes, owner, time, contents", () => {
    inFolder((folder) => {
      writeFileSync(join(folder, "a.tar.gz"), createArchive(entries));
      const listing = run(["tar", "--utc", "--full-time", "-tvzf", "a.tar.gz"], folder, {
        ...process.env,
        LC_ALL: "C.UTF-8",
      });
      expect(listing.stderr).toBe("");
      expect(listing.stdout.trimEnd().split("\n")).toEqual([
        expect.stringMatching(/^-rw-r--r-- root\/root +512 1980-01-01 00:00:00 app-1\/docs\/block$/),
        expect.stringMatching(/^-rw-r--r-- root\/root +0 1980-01-01 00:00:00 app-1\/empty$/),
        expect.stringMatching(/^-rwxr-xr-x root\/root +21 1980-01-01 00:00:00 app-1\/program$/),
        expect.stringMatching(/^-rw-r--r-- root\/root +1 1980-01-01 00:00:00 app-1\/ümlaut$/),
      ]);
      expect(run(["tar", "-xzf", "a.tar.gz"], folder).exitCode).toBe(0);
      for (const { name, contents } of entries) {
        expect(readFileSync(join(folder, name)).equals(Buffer.from(contents))).toBe(true);
      }
    });
  });

  test("refuses what it cannot tell", () => {
    const [entry] = entries;
    if (entry === undefined) throw new Error("no entry");
    expect(() => createArchive([entry, entry])).toThrow("is twice");
    expect(() => createArchive([{ ...entry, name: "n".repeat(101) }])).toThrow("too long");
  });
});

describe("sums and signature", () => {
  const files = [
    { name: "b.tar.gz", contents: Buffer.from("b") },
    { name: "a.tar.gz", contents: Buffer.from("a") },
  ];
  const pem = (key: KeyObject, type: "pkcs8" | "spki") => String(key.export({ format: "pem", type }));
  const pair = generateKeyPairSync("ed25519");
  const [privatePem, publicPem] = [pem(pair.privateKey, "pkcs8"), pem(pair.publicKey, "spki")];
  const key = parseReleaseKey(privatePem, publicPem);
  const sums = formatSums(files);

  test("are sorted, and what sha256sum checks", () => {
    expect(sums.split("\n").map((line) => line.slice(66))).toEqual(["a.tar.gz", "b.tar.gz", ""]);
    inFolder((folder) => {
      for (const { name, contents } of files) writeFileSync(join(folder, name), contents);
      writeFileSync(join(folder, SUMS_NAME), sums);
      expect(run(["sha256sum", "--check", "--strict", SUMS_NAME], folder).exitCode).toBe(0);
      writeFileSync(join(folder, "a.tar.gz"), "A");
      expect(run(["sha256sum", "--check", "--strict", SUMS_NAME], folder).exitCode).toBe(1);
    });
  });

  test("are verified by the command of the install page, and by nothing that was changed", () => {
    const page = readFileSync(join(ROOT, "docs/install.md"), "utf8");
    const command = /^openssl pkeyutl .*(?:\\\n.*)*$/m.exec(page)?.[0] ?? "";
    expect(command).not.toBe("");
    inFolder((folder) => {
      const verify = () => run(["/bin/sh", "-c", command], folder);
      writeFileSync(join(folder, "release-key.pem"), publicPem);
      writeFileSync(join(folder, SUMS_NAME), sums);
      const signature = signSums(sums, key);
      expect(signature).toHaveLength(64);
      writeFileSync(join(folder, SIGNATURE_NAME), signature);
      expect(verify()).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Verified Successfully") });
      writeFileSync(join(folder, SUMS_NAME), sums.replace("a.tar.gz", "c.tar.gz"));
      expect(verify().exitCode).not.toBe(0);
      writeFileSync(join(folder, SUMS_NAME), sums);
      const other = generateKeyPairSync("ed25519").publicKey;
      writeFileSync(join(folder, "release-key.pem"), pem(other, "spki"));
      expect(verify().exitCode).not.toBe(0);
    });
  });

  test("have the same signature each time, which no changed byte survives", () => {
    const signature = signSums(sums, key);
    expect(signSums(sums, key).equals(signature)).toBe(true);
    expect(verifySums(sums, signature, publicPem)).toBe(true);
    expect(verifySums(`${sums} `, signature, publicPem)).toBe(false);
    for (let index = 0; index < signature.length; index += 1) {
      const changed = Buffer.from(signature);
      changed[index] = (changed[index] ?? 0) ^ 1;
      expect(verifySums(sums, changed, publicPem)).toBe(false);
    }
  });

  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const other = generateKeyPairSync("ed25519");
  const refused: readonly (readonly [what: string, privatePem: string, publicPem: string, message: string])[] = [
    ["no PEM", "secret", publicPem, "the release key is no PEM"],
    ["the public half", publicPem, publicPem, "the release key is no PEM"],
    ["another kind", pem(rsa.privateKey, "pkcs8"), publicPem, "rsa, not ed25519"],
    ["another key", pem(other.privateKey, "pkcs8"), publicPem, "not the one whose public half is published"],
    ["no published key", privatePem, "none", "the published key is no PEM"],
  ];
  for (const [what, given, published, message] of refused) {
    test(`a key is refused: ${what}`, () => {
      expect(() => parseReleaseKey(given, published)).toThrow(message);
    });
  }
});

describe("the command", () => {
  const release = (args: readonly string[], env: Readonly<Record<string, string>> = {}) => {
    const { NIXDEPLOY_RELEASE_KEY_FILE: _, ...inherited } = process.env;
    return run([process.execPath, "scripts/release.ts", ...args], ROOT, { ...inherited, ...env });
  };

  test("without a key it says unsigned, and builds nothing", () => {
    expect(release([])).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: expect.stringMatching(
        /^release: unsigned: NIXDEPLOY_RELEASE_KEY_FILE names no key file; --unsigned [^\n]+\n$/,
      ),
    });
  });

  test("with a key that it cannot use it says unsigned, and nothing of the key", () => {
    inFolder((folder) => {
      const file = join(folder, "key.pem");
      writeFileSync(file, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
      chmodSync(file, 0o600);
      const { exitCode, stdout, stderr } = release([], { NIXDEPLOY_RELEASE_KEY_FILE: file });
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
      expect(stderr).toMatch(/^release: unsigned: [^\n]+\n$/);
      expect(stderr).not.toContain("c2VjcmV0");
    });
  });

  test("a wrong word is usage", () => {
    expect(release(["--bad"]).exitCode).toBe(2);
    expect(release(["--unsigned", "--only", "linux-armv7"]).stderr).toContain("there is no platform linux-armv7");
  });
});

describe("targets", () => {
  test("are Linux and macOS on both processors, Linux with both C libraries", () => {
    expect(RELEASE_TARGETS.map(({ name }) => name)).toEqual([
      "linux-x64",
      "linux-arm64",
      "linux-x64-musl",
      "linux-arm64-musl",
      "macos-arm64",
      "macos-x64",
    ]);
  });

  const lock = readFileSync(join(ROOT, "bun.lock"), "utf8");
  for (const { name, bunPlatform, format } of RELEASE_TARGETS) {
    test(`${name} has its Bun pinned by hash, and its name on the install page`, () => {
      expect(lock).toMatch(new RegExp(`"@oven/bun-${bunPlatform}": \\[.*"sha512-[A-Za-z0-9+/=]{88}"\\]`));
      expect(readFileSync(join(ROOT, "docs/install.md"), "utf8")).toContain(`\`${name}\``);
      expect(name).toContain(format.machine);
    });
  }
});

describe("executables", () => {
  const PAGE = 4096;

  /** The smallest Mach-O that can carry a signature: header, three load commands, some code, a stale signature. */
  function createMachO(codeBytes: number): Buffer {
    const bytes = Buffer.alloc(codeBytes + 100, 0xc3);
    bytes.fill(0, 0, 32 + 72 + 72 + 16);
    [0xfeedfacf, 0x01000007, 3, 2, 3, 72 + 72 + 16, 0, 0].forEach((word, index) => {
      bytes.writeUInt32LE(word, 4 * index);
    });
    const segment = (offset: number, name: string, from: number, size: number) => {
      bytes.writeUInt32LE(0x19, offset);
      bytes.writeUInt32LE(72, offset + 4);
      bytes.write(name, offset + 8, "latin1");
      bytes.writeBigUInt64LE(BigInt(from), offset + 40);
      bytes.writeBigUInt64LE(BigInt(size), offset + 48);
    };
    segment(32, "__TEXT", 0, codeBytes - 16);
    segment(104, "__LINKEDIT", codeBytes - 16, 116);
    [0x1d, 16, codeBytes, 100].forEach((word, index) => {
      bytes.writeUInt32LE(word, 176 + 4 * index);
    });
    return bytes;
  }

  for (const codeBytes of [PAGE - 5, PAGE, 3 * PAGE + 1]) {
    test(`an ad hoc signature covers ${codeBytes} bytes, each of them`, () => {
      const stale = createMachO(codeBytes);
      expect(() => checkMachO(stale, "x64")).toThrow("another form");
      const signed = signAdHoc(stale, "nixdeploy");
      checkExecutable(signed, { kind: "mach-o", machine: "x64" });
      expect(signAdHoc(signed, "nixdeploy").equals(signed)).toBe(true);
      expect(signed.length).toBe(signed.readUInt32LE(176 + 8) + signed.readUInt32LE(176 + 12));
      for (const index of [0x40, PAGE - 10, codeBytes - 1]) {
        const changed = Buffer.from(signed);
        changed[index] = (changed[index] ?? 0) ^ 1;
        expect(() => checkMachO(changed, "x64")).toThrow(/page \d+ is not the one that was signed/);
      }
      expect(() => checkMachO(signed, "arm64")).toThrow("for processor");
      expect(() => checkMachO(signed.subarray(0, -1), "x64")).toThrow();
    });
  }

  test("an ELF file is told by machine and loader", () => {
    const [target] = RELEASE_TARGETS;
    const bytes = readFileSync(process.execPath);
    const elf = { kind: "elf", machine: process.arch === "arm64" ? "arm64" : "x64", loader: "" } as const;
    if (process.platform !== "linux" || target === undefined) throw new Error("these tests run on Linux");
    expect(() => checkExecutable(bytes, elf)).toThrow("asks for the loader /lib");
    const other = elf.machine === "x64" ? "arm64" : "x64";
    expect(() => checkExecutable(bytes, { ...elf, machine: other })).toThrow("is for machine");
    expect(() => checkExecutable(bytes.subarray(0, 50), elf)).toThrow("cut off");
    expect(() => checkExecutable(Buffer.from("#!/bin/sh\n"), elf)).toThrow("is no ELF file");
  });
});
