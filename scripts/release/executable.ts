/**
 * Whether a binary is what its platform will load, told from its bytes: the only check for what cannot run here.
 *
 * ELF here: 64 bit, little endian; the machine; the loader that it asks for (PT_INTERP). Mach-O is in mach-o.ts.
 * Source: System V ABI, chapter 5.
 */
import { checkMachO } from "./mach-o.ts";

export type Processor = "x64" | "arm64";

export type ExecutableFormat =
  | { readonly kind: "elf"; readonly machine: Processor; readonly loader: string }
  | { readonly kind: "mach-o"; readonly machine: Processor };

const ELF_MAGIC = 0x464c457f;
const ELF_CLASS_64_LITTLE = 0x0102;
const ELF_MACHINES: Readonly<Record<Processor, number>> = { x64: 62, arm64: 183 };
const ELF_PT_INTERP = 3;

/** @throws Error that says what is not as it must be */
export function checkExecutable(bytes: Buffer, format: ExecutableFormat): void {
  try {
    if (format.kind === "elf") checkElf(bytes, format);
    else checkMachO(bytes, format.machine);
  } catch (error) {
    if (error instanceof RangeError) throw new Error("the executable is cut off", { cause: error });
    throw error;
  }
}

function checkElf(bytes: Buffer, format: ExecutableFormat & { readonly kind: "elf" }): void {
  if (bytes.readUInt32LE(0) !== ELF_MAGIC) throw new Error("the executable is no ELF file");
  if (bytes.readUInt16LE(4) !== ELF_CLASS_64_LITTLE) throw new Error("the executable is no 64-bit little-endian ELF");
  const machine = bytes.readUInt16LE(18);
  if (machine !== ELF_MACHINES[format.machine]) throw new Error(`the executable is for machine ${machine}`);
  const loader = readElfLoader(bytes);
  if (loader !== format.loader) throw new Error(`the executable asks for the loader ${loader}, not ${format.loader}`);
}

/** Null for a static executable. */
export function readElfLoader(bytes: Buffer): string | null {
  const tableOffset = Number(bytes.readBigUInt64LE(32));
  const [entryBytes, entryCount] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  for (let index = 0; index < entryCount; index += 1) {
    const entry = tableOffset + index * entryBytes;
    if (bytes.readUInt32LE(entry) !== ELF_PT_INTERP) continue;
    const offset = Number(bytes.readBigUInt64LE(entry + 8));
    const length = Number(bytes.readBigUInt64LE(entry + 32));
    return bytes.toString("latin1", offset, offset + length - 1);
  }
  return null;
}
