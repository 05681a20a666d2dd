/**
 * systemd-boot, by `bootctl` and the variables of the Boot Loader Interface. The default is the variable
 * LoaderEntryDefault when there is one, else what loader.conf says, which NixOS writes; LoaderEntryOneShot comes before
 * both and is removed by the loader when it has read it.
 *
 * Spec: https://systemd.io/BOOT_LOADER_INTERFACE, bootctl(1); variables as efivarfs shows them: four bytes of
 * attributes, then UTF-16 with a NUL at its end.
 */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { describeError, NixdeployError } from "../../../errors.ts";
import { isMissing } from "../../machine/system-error.ts";
import type { BootEntry, BootLoader, RunLoaderTool } from "./boot-loader.ts";
import { parseInit } from "./boot-loader.ts";

const VARIABLES = "/sys/firmware/efi/efivars";
const VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const ATTRIBUTES_BYTES = 4;
/** More than any of ours; none is compared before this is. */
const VARIABLE_BYTES_MAX = 64 * 1024;

const entriesSchema = z.array(z.object({ id: z.string(), options: z.string().optional() }));

/** Whether it is what booted this machine. */
export async function isSystemdBoot(): Promise<boolean> {
  return (await readVariable("LoaderInfo"))?.startsWith("systemd-boot") === true;
}

export function createSystemdBoot(run: RunLoaderTool): BootLoader {
  const set = async (verb: "set-default" | "set-oneshot", entry: string | null) => {
    await run("bootctl", [verb, entry ?? ""]);
  };
  return {
    kind: "systemd-boot",
    listEntries: async () => parseEntries(await run("bootctl", ["list", "--json=short", "--no-pager"])),
    readPinned: () => readVariable("LoaderEntryDefault"),
    readOneShot: () => readVariable("LoaderEntryOneShot"),
    pin: (entry) => set("set-default", entry),
    setOneShot: (entry) => set("set-oneshot", entry),
  };
}

/** What `bootctl list --json=short` prints, oldest generation first. @throws NixdeployError("host") */
export function parseEntries(text: string): BootEntry[] {
  let entries: z.output<typeof entriesSchema>;
  try {
    entries = entriesSchema.parse(JSON.parse(text));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : describeError(cause);
    throw new NixdeployError("host", `cannot read the boot entries that bootctl lists: ${why}`, { cause });
  }
  const found: BootEntry[] = [];
  // It lists the newest first.
  for (const { id, options } of entries.reverse()) {
    const system = parseInit(options ?? "");
    if (system !== null) found.push({ id, system });
  }
  return found;
}

/** @returns null for none; also for an empty one, which counts as none */
async function readVariable(name: string): Promise<string | null> {
  try {
    const bytes = await readFile(`${VARIABLES}/${name}-${VENDOR}`);
    if (bytes.length > VARIABLE_BYTES_MAX) return null;
    return parseVariable(bytes);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** A variable's file. @returns its text up to the NUL; null when that is empty */
export function parseVariable(bytes: Uint8Array): string | null {
  const text = new TextDecoder("utf-16le").decode(bytes.subarray(ATTRIBUTES_BYTES));
  const end = text.indexOf("\0");
  const value = end === -1 ? text : text.slice(0, end);
  return value === "" ? null : value;
}
