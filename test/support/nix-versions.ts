/**
 * The Nix of several Debian suites side by side, each unpacked below `.toolchain/nix-SUITE/` with every library it
 * needs, so that machines (machine.ts) of one test run different ones. The packages of this system are not touched.
 *
 * Suites and not versions, because a suite moves: what is there is met, and no expectation names a version. A folder
 * that is there is used as it is; remove it to get what the suite has today.
 *
 * How: apt with lists and a (empty) package database of its own downloads nix-bin with all it depends on; nix is then
 * patched to its own loader and libraries, and not merely started by them, because Nix finds itself by /proc/self/exe.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { describeNix, ensureNix, type Nix } from "./nix.ts";
import { runChecked } from "./processes.ts";
import { waitFor } from "./wait-for.ts";

/** Oldest first: Debian 12, Debian 13, and what will be in the next one. */
export const NIX_SUITES = ["bookworm", "trixie", "sid"] as const;
export type NixSuite = (typeof NIX_SUITES)[number];

/** Who builds for whom: each suite once on either side, the oldest with the newest both ways. */
export const NIX_PAIRS: readonly { readonly builder: NixSuite; readonly device: NixSuite }[] = [
  { builder: "sid", device: "bookworm" },
  { builder: "trixie", device: "trixie" },
  { builder: "bookworm", device: "sid" },
];

const FOLDER = join(import.meta.dir, "../../.toolchain");
const PROGRAMS = ["nix-store", "nix-daemon", "nix-build", "nix-env", "nix-instantiate", "nix-collect-garbage"];
const NEVER_USED = ["./usr/share", "./var", "./usr/lib/*/perl*", "./usr/lib/*/gconv"];
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** A line `SITE RELEASE` of apt, of a release and not of its updates. */
const DEBIAN_MIRROR = /^(\S+) (bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$/m;
const DOWNLOAD_MAX_MS = 300_000;

/** Debian's names of this machine's platform. */
const PLATFORM = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" }[process.arch === "arm64" ? "arm64" : "x64"];

/**
 * The Nix of a Debian suite: this system's own where it is that suite, else the unpacked one. The first call for a
 * suite downloads about 40 MB; later ones, of any process, take a few milliseconds.
 * @throws Error that says what is missing when this is no Debian, or its mirror cannot be reached
 */
export async function ensureNixOf(suite: NixSuite): Promise<Nix> {
  if (await isThisSystem(suite)) {
    const nix = await ensureNix();
    if (nix.binDirectory === "/usr/bin") return nix;
  }
  const directory = join(FOLDER, `nix-${suite}`);
  using _lock = await waitFor(`another process to unpack ${directory}`, () => tryLockFile(`${directory}.lock`), {
    timeoutMs: DOWNLOAD_MAX_MS,
    intervalMs: 100,
  });
  const binDirectory = join(directory, "bin");
  // Fails where it was moved with its checkout: the loader's path in it is absolute.
  const found = existsSync(binDirectory) ? await describeNix(binDirectory).catch(() => null) : null;
  if (found !== null) return found;
  const partial = `${directory}.partial`;
  await rm(partial, { recursive: true, force: true });
  await downloadPackages(suite, partial);
  await unpackPackages(partial);
  await patchNix(partial, directory);
  await rm(directory, { recursive: true, force: true });
  await rename(partial, directory);
  return await describeNix(binDirectory);
}

async function isThisSystem(suite: NixSuite): Promise<boolean> {
  const release = existsSync("/etc/os-release") ? await readFile("/etc/os-release", "utf8") : "";
  return /^ID=debian$/m.test(release) && new RegExp(`^VERSION_CODENAME=${suite}$`, "m").test(release);
}

/** nix-bin, patchelf and all they depend on, as .deb files in `directory`/apt/cache/archives. */
async function downloadPackages(suite: NixSuite, directory: string): Promise<void> {
  if (!existsSync(KEYRING) || !existsSync("/usr/bin/apt-get")) {
    throw new Error(
      `cannot download the Nix of ${suite}: no ${KEYRING}\nRun this on Debian, or install apt and debian-archive-keyring.`,
    );
  }
  const apt = join(directory, "apt");
  for (const folder of ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "state"]) {
    await mkdir(join(apt, folder), { recursive: true });
  }
  await writeFile(join(apt, "status"), "");
  await writeFile(join(apt, "sources.list"), `deb [signed-by=${KEYRING}] ${await findMirror()} ${suite} main\n`);
  const settings = {
    "Dir::Etc": join(apt, "etc"),
    "Dir::Etc::sourcelist": join(apt, "sources.list"),
    "Dir::Etc::sourceparts": "/nonexistent",
    "Dir::State": join(apt, "state"),
    "Dir::State::lists": join(apt, "lists"),
    "Dir::State::status": join(apt, "status"),
    "Dir::Cache": join(apt, "cache"),
    "Acquire::Languages": "none",
    "Acquire::Retries": "3",
    "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    "APT::Install-Recommends": "false",
    "APT::Sandbox::User": "root",
    "Debug::NoLocking": "true",
  };
  const command = [
    "apt-get",
    "-qq",
    ...Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]),
  ];
  await runChecked([...command, "update"], { timeoutMs: DOWNLOAD_MAX_MS });
  const download = ["install", "-y", "--download-only", "nix-bin", "patchelf"];
  await runChecked([...command, ...download], { timeoutMs: DOWNLOAD_MAX_MS });
}

/** The mirror that this system's own apt uses for Debian. */
async function findMirror(): Promise<string> {
  const targets = await runChecked(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"]);
  const [, mirror] = DEBIAN_MIRROR.exec(targets) ?? [];
  if (mirror === undefined)
    throw new Error("cannot find a mirror of Debian: the sources of apt on this system name none");
  return mirror;
}

async function unpackPackages(directory: string): Promise<void> {
  const archives = join(directory, "apt/cache/archives");
  const root = join(directory, "root");
  await mkdir(root);
  const excludes = NEVER_USED.map((pattern) => `--exclude=${pattern}`).join(" ");
  const unpack = `dpkg-deb --fsys-tarfile "$1" | tar -C "$0" -xf - --no-same-owner --keep-directory-symlink ${excludes}`;
  for (const name of (await readdir(archives)).filter((file) => file.endsWith(".deb"))) {
    await runChecked(["/bin/sh", "-euc", unpack, root, join(archives, name)]);
  }
  await rm(join(directory, "apt"), { recursive: true });
}

/** Makes `directory`/bin, for use once `directory` is called `finalDirectory`. */
async function patchNix(directory: string, finalDirectory: string): Promise<void> {
  const root = await realpath(join(directory, "root"));
  const libraryFolders = [`usr/lib/${PLATFORM}`, `lib/${PLATFORM}`, "usr/lib/nix", "usr/lib", "lib"];
  const librariesIn = (place: string) => libraryFolders.map((folder) => join(place, folder)).join(":");
  const loader = await findLoader(root);
  const bin = join(directory, "bin");
  await mkdir(bin);
  const finalRoot = join(finalDirectory, "root");
  await runChecked([
    ...[loader, "--library-path", librariesIn(root), join(root, "usr/bin/patchelf")],
    ...["--set-interpreter", loader.replace(root, finalRoot), "--force-rpath", "--set-rpath", librariesIn(finalRoot)],
    ...["--output", join(bin, "nix"), join(root, "usr/bin/nix")],
  ]);
  await runChecked(["chmod", "0755", join(bin, "nix")]);
  // Nix looks at the name it was called by.
  for (const program of PROGRAMS) await symlink("nix", join(bin, program));
}

/** The dynamic loader itself, not a link to it. */
async function findLoader(root: string): Promise<string> {
  for (const folder of [`usr/lib/${PLATFORM}`, `lib/${PLATFORM}`]) {
    const names = existsSync(join(root, folder)) ? await readdir(join(root, folder)) : [];
    const name = names.find((file) => /^ld-linux-[\w-]+\.so\.\d+$/.test(file));
    if (name !== undefined) return await realpath(join(root, folder, name));
  }
  throw new Error(`cannot find the dynamic loader below ${root}`);
}
