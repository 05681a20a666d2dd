/**
 * Whether this machine can run a file, told from the file alone: it is there, may be executed, and is a program of this
 * kind of machine or a script whose interpreter is one. Runs nothing, and has no opinion where it knows too little.
 *
 * Formats: ELF header (elf(5): e_machine), Mach-O header (mach-o/loader.h: magic), "#!" (execve(2)).
 */
import { open } from "node:fs/promises";
import { exists, isExecutableFile } from "../../machine/look.ts";
import { hasCode } from "../../machine/system-error.ts";

export type Platform = { readonly os: string; readonly architecture: string };

const HERE: Platform = { os: process.platform, architecture: process.arch };

const HEAD_BYTES = 256;
/** The kernel follows four interpreters that are scripts themselves. */
const INTERPRETERS_MAX = 4;

/** e_machine → name. */
const ELF_MACHINES: Readonly<Record<number, string>> = {
  3: "i686",
  40: "armv7",
  62: "x86_64",
  183: "aarch64",
  243: "riscv64",
  258: "loongarch64",
};
/** What the kernel of an architecture runs; of others nothing is known. */
const RUNS: Readonly<Record<string, readonly number[]>> = { x64: [62, 3], arm64: [183, 40] };
const MACH_O_MAGICS = ["cffaedfe", "cefaedfe", "cafebabe"];

/** @returns why it cannot be run, continuing "PATH ", or null */
export async function describeProgramFault(path: string, here: Platform = HERE): Promise<string | null> {
  return await describeFault(path, here, INTERPRETERS_MAX);
}

async function describeFault(path: string, here: Platform, interpretersLeft: number): Promise<string | null> {
  if (!(await exists(path))) return "is missing";
  if (!(await isExecutableFile(path))) return "is not an executable file";
  const head = await readHead(path);
  if (head === null) return null;
  const foreign = describeForeign(head, here);
  if (foreign !== null) return `is a program for ${foreign}, which this machine cannot run`;
  const interpreter = parseInterpreter(head);
  if (interpreter === null || interpretersLeft === 0) return null;
  const fault = await describeFault(interpreter, here, interpretersLeft - 1);
  return fault === null ? null : `is a script, and its interpreter ${interpreter} ${fault}`;
}

/** What kind of machine the program is for, if it is surely not this one; null when it may be. Pure. */
export function describeForeign(head: Uint8Array, here: Platform): string | null {
  const magic = Buffer.from(head.subarray(0, 4)).toString("hex");
  if (MACH_O_MAGICS.includes(magic)) return here.os === "darwin" ? null : "macOS";
  if (magic !== "7f454c46" || head.length < 20) return null;
  if (here.os === "darwin") return "Linux";
  // EI_DATA: 1 is little endian.
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const machine = view.getUint16(18, head[5] === 1);
  const runs = RUNS[here.architecture];
  if (runs === undefined || runs.includes(machine)) return null;
  return ELF_MACHINES[machine] ?? "another kind of machine";
}

/** The interpreter of a script; null when it is none, or names none by an absolute path. Pure. */
export function parseInterpreter(head: Uint8Array): string | null {
  const [line = ""] = Buffer.from(head).toString("latin1").split("\n");
  return /^#![ \t]*(\/[^ \t\r]+)/.exec(line)?.[1] ?? null;
}

/** Null for a program that may be run but not read. */
async function readHead(path: string): Promise<Uint8Array | null> {
  try {
    const file = await open(path, "r");
    try {
      const { buffer, bytesRead } = await file.read(new Uint8Array(HEAD_BYTES), 0, HEAD_BYTES, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (hasCode(error, "EACCES")) return null;
    throw error;
  }
}
