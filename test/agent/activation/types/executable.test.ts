/** What can be told of a program without running it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import {
  describeForeign,
  describeProgramFault,
  parseInterpreter,
} from "../../../../src/agent/activation/types/executable.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../../support/temporary-directory.ts";

const LINUX = { os: "linux", architecture: "x64" };
const ARM = { os: "linux", architecture: "arm64" };
const MAC = { os: "darwin", architecture: "arm64" };

/** The first 20 bytes of an ELF file (elf(5)). */
function elf(machine: number, { isBig = false } = {}): Uint8Array {
  const head = new Uint8Array(64);
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, isBig ? 2 : 1, 1]);
  new DataView(head.buffer).setUint16(18, machine, !isBig);
  return head;
}

describe("a program's head", () => {
  const cases = [
    ["of this machine", elf(62), LINUX, null],
    ["of 32 bits on one of 64", elf(3), LINUX, null],
    ["of another architecture", elf(183), LINUX, "aarch64"],
    ["of this one, seen from that", elf(62), ARM, "x86_64"],
    ["of no architecture that is known", elf(0xfffe), LINUX, "another kind of machine"],
    ["in the other byte order", elf(21, { isBig: true }), LINUX, "another kind of machine"],
    ["on an architecture of which nothing is known", elf(62), { os: "linux", architecture: "riscv64" }, null],
    ["of Linux on a Mac", elf(183), MAC, "Linux"],
    ["of a Mac on a Mac", Uint8Array.of(0xcf, 0xfa, 0xed, 0xfe), MAC, null],
    ["of a Mac elsewhere", Uint8Array.of(0xcf, 0xfa, 0xed, 0xfe), LINUX, "macOS"],
    ["of a Mac for several, elsewhere", Uint8Array.of(0xca, 0xfe, 0xba, 0xbe), LINUX, "macOS"],
    ["that is cut off", elf(183).subarray(0, 19), LINUX, null],
    ["that is empty", new Uint8Array(), LINUX, null],
    ["that is a script", Buffer.from("#!/bin/sh\n"), LINUX, null],
  ] as const;
  for (const [what, head, here, expected] of cases) {
    test(`${what}: ${expected ?? "no objection"}`, () => expect(describeForeign(head, here)).toBe(expected));
  }

  test("names its interpreter by an absolute path", () => {
    for (const [text, expected] of [
      ["#!/bin/sh\necho", "/bin/sh"],
      ["#! /usr/bin/env -i /bin/bash\n", "/usr/bin/env"],
      ["#!/bin/sh", "/bin/sh"],
      ["#!sh\n", null],
      ["\n#!/bin/sh", null],
      ["", null],
    ] as const) {
      expect(parseInterpreter(Buffer.from(text))).toBe(expected);
    }
  });
});

describe("a file", () => {
  let directory: TemporaryDirectory;
  beforeEach(async () => {
    directory = await createTemporaryDirectory("executable");
  });
  afterEach(() => directory[Symbol.asyncDispose]());

  async function put(name: string, content: string | Uint8Array, mode = 0o755): Promise<string> {
    const path = directory.join(name);
    await writeFile(path, content);
    await chmod(path, mode);
    return path;
  }

  test("that is missing, or leads nowhere, is missing", async () => {
    await symlink("nowhere", directory.join("link"));
    for (const name of ["none", "link"]) expect(await describeProgramFault(directory.join(name))).toBe("is missing");
  });

  test("that is a folder, or may not be executed, is no executable file", async () => {
    await mkdir(directory.join("folder"));
    const data = await put("data", "#!/bin/sh\n", 0o644);
    for (const path of [data, directory.join("folder")]) {
      expect(await describeProgramFault(path)).toBe("is not an executable file");
    }
  });

  test("that this machine runs has no fault", async () => {
    for (const path of [process.execPath, "/bin/sh", await put("script", "#!/bin/sh\n"), await put("text", "true\n")]) {
      expect(await describeProgramFault(path)).toBeNull();
    }
  });

  test("whose interpreter cannot run says which, and why", async () => {
    const foreign = await put("foreign", elf(0xfffe));
    const script = await put("script", `#!${foreign}\n`);
    const reason = `is a script, and its interpreter ${foreign} is a program for another kind of machine, which this machine cannot run`;
    expect(await describeProgramFault(script, LINUX)).toBe(reason);
    const lost = await put("lost", "#!/nix/store/nowhere/bin/bash\n");
    expect(await describeProgramFault(lost)).toBe(
      "is a script, and its interpreter /nix/store/nowhere/bin/bash is missing",
    );
  });

  test("that interprets itself is given up", async () => {
    expect(await describeProgramFault(await put("loop", `#!${directory.join("loop")}\n`))).toBeNull();
  });
});
