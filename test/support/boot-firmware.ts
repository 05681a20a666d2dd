/**
 * What a machine does between power and the first program of a system: firmware variables and boot loader, as far as
 * NixOS and nixdeploy use them. Which loader there is, its files below /boot say (install-boot-loader.sh):
 *
 *   loader/default      none: the one line is the system to boot
 *   loader/loader.conf  systemd-boot: LoaderEntryOneShot (removed when read), else LoaderEntryDefault, else `default`
 *   grub/grub.cfg       GRUB: next_entry (emptied when read), else `set default=`: saved_entry or a number
 *
 * An entry that is not there makes a loader take its first one, as the originals do. Reads what was written by others,
 * with no code of the product.
 */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

export type Disk = {
  /** Host path of /boot. */
  readonly boot: string;
  /** Host path of /sys/firmware. */
  readonly firmware: string;
};

const VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const ATTRIBUTES = Buffer.from([7, 0, 0, 0]);
const GRUB_ENVIRONMENT_BYTES = 1_024;

/** A boot: what is for one time is used up. @returns the system, or null when there is nothing to boot */
export async function takeBoot(disk: Disk): Promise<string | null> {
  const loader = await findLoader(disk);
  if (loader === "systemd-boot") {
    await setVariable(disk, "LoaderInfo", "systemd-boot 257.6");
    const oneShot = await readVariable(disk, "LoaderEntryOneShot");
    await setVariable(disk, "LoaderEntryOneShot", null);
    return await bootEntry(disk, oneShot);
  }
  // The firmware keeps them; but nobody says that systemd-boot booted this time.
  await setVariable(disk, "LoaderInfo", null);
  if (loader === "grub") return await bootGrub(disk);
  return await readOrNull(join(disk.boot, "loader/default"));
}

/** What boots when nothing is for one time. Changes nothing. */
export async function readBootDefault(disk: Disk): Promise<string | null> {
  switch (await findLoader(disk)) {
    case "systemd-boot":
      return await bootEntry(disk, null);
    case "grub": {
      const { entries, fallback } = await readGrub(disk);
      return (entries.find(({ title }) => title === fallback) ?? entries[0])?.system ?? null;
    }
    default:
      return await readOrNull(join(disk.boot, "loader/default"));
  }
}

/** An entry of a loader's variables; null: not set. */
export async function readLoaderVariables(disk: Disk): Promise<{ default: string | null; oneShot: string | null }> {
  if ((await findLoader(disk)) === "grub") {
    const environment = await readGrubEnvironment(disk);
    return { default: environment.get("saved_entry") || null, oneShot: environment.get("next_entry") || null };
  }
  return {
    default: await readVariable(disk, "LoaderEntryDefault"),
    oneShot: await readVariable(disk, "LoaderEntryOneShot"),
  };
}

async function findLoader({ boot }: Disk): Promise<"systemd-boot" | "grub" | null> {
  if ((await readOrNull(join(boot, "grub/grub.cfg"))) !== null) return "grub";
  return (await readOrNull(join(boot, "loader/loader.conf"))) === null ? null : "systemd-boot";
}

async function bootEntry(disk: Disk, oneShot: string | null): Promise<string | null> {
  const directory = join(disk.boot, "loader/entries");
  const names = (await readdir(directory)).filter((name) => name.endsWith(".conf"));
  // Newest first.
  names.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  const configuration = await readFile(join(disk.boot, "loader/loader.conf"), "utf8");
  const configured = /^default (.*)$/m.exec(configuration)?.[1];
  const wanted = [oneShot, await readVariable(disk, "LoaderEntryDefault"), configured];
  const name = wanted.find((entry) => typeof entry === "string" && names.includes(entry)) ?? names[0];
  return typeof name === "string" ? findInit(await readFile(join(directory, name), "utf8")) : null;
}

async function bootGrub(disk: Disk): Promise<string | null> {
  const environment = await readGrubEnvironment(disk);
  const { entries, fallback, isSaved } = await readGrub(disk);
  const next = environment.get("next_entry") || null;
  const entry = entries.find(({ title }) => title === (next ?? fallback)) ?? entries[0];
  if (next !== null) environment.set("next_entry", "");
  else if (isSaved && entry !== undefined) environment.set("saved_entry", entry.title);
  const lines = [...environment].map(([name, value]) => `${name}=${value}\n`).join("");
  await writeFile(grubEnvironmentPath(disk), `# GRUB Environment Block\n${lines}`.padEnd(GRUB_ENVIRONMENT_BYTES, "#"));
  return entry?.system ?? null;
}

type GrubEntry = { readonly title: string; readonly system: string };

async function readGrub(disk: Disk) {
  const text = await readFile(join(disk.boot, "grub/grub.cfg"), "utf8");
  const entries: GrubEntry[] = [];
  let menu: string | null = null;
  let title = "";
  for (const line of text.split("\n")) {
    const [, kind, name] = /^(submenu|menuentry) "(.*?)"/.exec(line) ?? [];
    if (kind === "submenu") menu = name ?? null;
    if (kind === "menuentry") title = menu === null ? (name ?? "") : `${menu}>${name}`;
    const system = /^\s+linux /.test(line) ? findInit(line) : null;
    if (system !== null) entries.push({ title, system });
  }
  const isSaved = /^\s*set default="\$\{saved_entry\}"$/m.test(text);
  const saved = (await readGrubEnvironment(disk)).get("saved_entry") ?? "";
  return { entries, isSaved, fallback: isSaved ? saved : "" };
}

async function readGrubEnvironment(disk: Disk): Promise<Map<string, string>> {
  const text = (await readOrNull(grubEnvironmentPath(disk))) ?? "";
  const lines = text.split("\n").filter((line) => !line.startsWith("#") && line.includes("="));
  return new Map(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

function grubEnvironmentPath({ boot }: Disk): string {
  return join(boot, "grub/grubenv");
}

function findInit(text: string): string | null {
  return /\binit=(\S+)\/init\b/.exec(text)?.[1] ?? null;
}

async function readVariable(disk: Disk, name: string): Promise<string | null> {
  const bytes = await readFile(variablePath(disk, name)).catch(() => null);
  return bytes === null ? null : bytes.subarray(ATTRIBUTES.length).toString("utf16le").replace(/\0.*$/s, "");
}

async function setVariable(disk: Disk, name: string, value: string | null): Promise<void> {
  const path = variablePath(disk, name);
  if (value === null) return await rm(path, { force: true });
  await mkdir(join(disk.firmware, "efi/efivars"), { recursive: true });
  await writeFile(path, Buffer.concat([ATTRIBUTES, Buffer.from(`${value}\0`, "utf16le")]));
}

function variablePath({ firmware }: Disk, name: string): string {
  return join(firmware, "efi/efivars", `${name}-${VENDOR}`);
}

async function readOrNull(path: string): Promise<string | null> {
  return await readFile(path, "utf8").then(
    (text) => text.trim(),
    () => null,
  );
}
