/**
 * GRUB as NixOS configures it with `boot.loader.grub.default = "saved"`: the default is the variable `saved_entry` of
 * grubenv, and `next_entry` comes before it for one boot. An entry is named by its titles from the outermost menu in,
 * joined by ">". The entry at the top is whatever was installed last, so only those of the submenus keep their meaning.
 *
 * Only what NixOS' install-grub.pl writes is understood, line by line; anything else is simply no entry.
 */
import { readFile } from "node:fs/promises";
import { isMissing } from "../../machine/system-error.ts";
import type { BootEntry, BootLoader, RunLoaderTool } from "./boot-loader.ts";
import { parseInit } from "./boot-loader.ts";

export const GRUB_CONFIG = "/boot/grub/grub.cfg";
const GRUB_ENVIRONMENT = "/boot/grub/grubenv";

export function createGrub(run: RunLoaderTool): BootLoader {
  /** What `grub-set-default` and `grub-reboot` do, which cannot take a variable away. */
  const set = async (variable: "saved_entry" | "next_entry", entry: string | null) => {
    const change = entry === null ? ["unset", variable] : ["set", `${variable}=${entry}`];
    await run("grub-editenv", [GRUB_ENVIRONMENT, ...change]);
  };
  return {
    kind: "grub",
    listEntries: async () => parseGrubConfig(await readFile(GRUB_CONFIG, "utf8")).entries,
    readPinned: () => readVariable("saved_entry"),
    readOneShot: () => readVariable("next_entry"),
    pin: (entry) => set("saved_entry", entry),
    setOneShot: (entry) => set("next_entry", entry),
  };
}

/** `entries`: those of submenus, oldest generation first. */
export function parseGrubConfig(text: string): {
  readonly isDefaultSaved: boolean;
  readonly entries: readonly BootEntry[];
} {
  const entries: BootEntry[] = [];
  /** Titles of the blocks we are in; null for a block that is no menu. */
  const blocks: (string | null)[] = [];
  let knowsOneShot = false;
  let isDefaultSaved = false;
  for (const line of text.split("\n")) {
    knowsOneShot ||= /^\s*set default="\$\{next_entry\}"\s*$/.test(line);
    isDefaultSaved ||= /^\s*set default="\$\{saved_entry\}"\s*$/.test(line);
    const opened = parseBlockStart(line);
    if (opened !== undefined) blocks.push(opened);
    else if (/^\s*\}\s*$/.test(line)) blocks.pop();
    else if (/^\s*(linux|module)\s/.test(line)) {
      const titles = blocks.filter((title) => title !== null);
      const system = parseInit(line);
      // Newest generation first in the file.
      if (system !== null && titles.length > 1) entries.unshift({ id: formatTitles(titles), system });
    }
  }
  return { isDefaultSaved: knowsOneShot && isDefaultSaved, entries };
}

/** The block of a file of 1,024 bytes. @returns null when the variable is not there, or empty */
export function parseGrubEnvironment(text: string, variable: string): string | null {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${variable}=`));
  return line?.slice(variable.length + 1).replaceAll("\\\\", "\\") || null;
}

/** @returns undefined when no block begins here, null for one without a title */
function parseBlockStart(line: string): string | null | undefined {
  if (!/\{\s*$/.test(line)) return undefined;
  return /^\s*(?:menuentry|submenu)\s+(?:"([^"]*)"|'([^']*)')/.exec(line)?.slice(1).find(isText) ?? null;
}

function isText(value: string | undefined): value is string {
  return value !== undefined;
}

/** GRUB takes ">>" for the character itself. */
function formatTitles(titles: readonly string[]): string {
  return titles.map((title) => title.replaceAll(">", ">>")).join(">");
}

async function readVariable(name: string): Promise<string | null> {
  try {
    return parseGrubEnvironment(await readFile(GRUB_ENVIRONMENT, "utf8"), name);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}
