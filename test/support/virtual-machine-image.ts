/**
 * What the virtual machine (virtual-machine.ts) boots from: Debian's kernel for clouds, a small initramfs that finds the
 * disks, and a root file system of this system's own programs, which is only read. All of it is made here, from Debian's
 * packages and test/fixtures/virtual-machine; nothing of it is installed on this system but the tools that make it.
 *
 * The kernel's package is unpacked below `.toolchain`; remove the folder to get today's. x86-64 only.
 */
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdir, readdir, realpath, rename, rm, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { ensureDebianPackages } from "./debian.ts";
import { ensureNix } from "./nix.ts";
import { runChecked } from "./processes.ts";
import { waitFor } from "./wait-for.ts";

export type Kernel = {
  readonly image: string;
  /** Where `kernel/drivers/…` is. */
  readonly modules: string;
};

export type RootImageOptions = {
  /** Absolute; the image and what it is made of go there. */
  readonly directory: string;
  /** Host file → where it is inside. Programs get the libraries that they need. */
  readonly files: Readonly<Record<string, string>>;
  /** Path inside → text. */
  readonly texts: Readonly<Record<string, string>>;
};

const TOOLCHAIN = join(import.meta.dir, "../../.toolchain");
const FIXTURES = join(import.meta.dir, "../fixtures/virtual-machine");
const DOWNLOAD_MAX_MS = 300_000;

/** In the order in which they can be loaded. */
const MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci",
  "drivers/block/virtio_blk",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
] as const;

/** What the fixtures' systems call, and what a test wants to look at. */
const PROGRAMS = [
  ...[
    "sh",
    "awk",
    "basename",
    "cat",
    "chmod",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "dirname",
    "env",
    "find",
    "flock",
    "grep",
  ],
  ...[
    "head",
    "hostname",
    "id",
    "inotifywait",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "ps",
    "readlink",
    "rm",
  ],
  ...[
    "sed",
    "seq",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
  ],
] as const;
const NIX_PROGRAMS = ["nix-daemon", "nix-env", "nix-store"] as const;
/** File of the fixtures → where it is inside. */
const SCRIPTS = {
  inittab: "etc/inittab",
  "start.sh": "etc/start",
  "agent.sh": "etc/agent",
  "stages.sh": "etc/stages",
  "shell.cgi": "etc/www/cgi-bin/shell",
} as const;
/** Everything is one folder below /usr, as on Debian. */
const MERGED = ["bin", "sbin", "lib", "lib64"] as const;
const FOLDERS = ["dev", "proc", "sys", "run", "tmp", "root", "nix", "boot", "var/lib/nixdeploy", "usr/bin", "usr/lib"];

/** Installs what is missing. Downloads about 27 MB when no kernel is there yet. */
export async function ensureKernel(): Promise<Kernel> {
  if (process.arch !== "x64") throw new Error("cannot make a virtual machine here: only of x86-64");
  await ensureDebianPackages(["busybox-static", "e2fsprogs", "inotify-tools", "qemu-system-x86", "qemu-utils"]);
  const directory = join(TOOLCHAIN, "kernel");
  using _lock = await waitFor(`another process to unpack ${directory}`, () => tryLockFile(`${directory}.lock`), {
    timeoutMs: DOWNLOAD_MAX_MS,
    intervalMs: 100,
  });
  if (!existsSync(directory)) {
    const partial = `${directory}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    await runChecked(["/bin/sh", "-euc", DOWNLOAD_KERNEL], { cwd: partial, timeoutMs: DOWNLOAD_MAX_MS });
    await rename(partial, directory);
  }
  const version = (await readdir(join(directory, "lib/modules")))[0] ?? "none";
  return { image: join(directory, "boot", `vmlinuz-${version}`), modules: join(directory, "lib/modules", version) };
}

/** The package without a version depends on the one that has the kernel. */
const DOWNLOAD_KERNEL = `
find_name() { apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *//p' | head -n 1; }
name=$(find_name)
if [ -z "$name" ] || ! apt-get -q download "$name"; then
  apt-get -q update
  apt-get -q download "$(find_name)"
fi
dpkg-deb --extract ./*.deb .
rm ./*.deb
`;

/** @returns the file, in `directory` */
export async function buildInitramfs(kernel: Kernel, directory: string): Promise<string> {
  const tree = join(directory, "initramfs");
  for (const folder of ["bin", "modules", "root", "proc", "sys", "dev"]) {
    await mkdir(join(tree, folder), { recursive: true });
  }
  await copyFile("/bin/busybox", join(tree, "bin/busybox"));
  await copyFile(join(FIXTURES, "initramfs.sh"), join(tree, "init"));
  await chmod(join(tree, "init"), 0o755);
  for (const name of MODULES) {
    await copyFile(join(kernel.modules, "kernel", `${name}.ko`), join(tree, "modules", `${basename(name)}.ko`));
  }
  await writeFile(join(tree, "modules/order"), `${MODULES.map((name) => basename(name)).join("\n")}\n`);
  const file = `${tree}.cpio`;
  await runChecked(["/bin/sh", "-euc", 'find . | busybox cpio -o -H newc > "$0"', file], { cwd: tree });
  return file;
}

/** An ext4 image with this system's shell, tools and Nix. @returns the file, in `directory` */
export async function buildRootImage({ directory, files, texts }: RootImageOptions): Promise<string> {
  const tree = join(directory, "root");
  for (const folder of FOLDERS) await mkdir(join(tree, folder), { recursive: true });
  for (const folder of MERGED) {
    if (folder !== "bin" && folder !== "lib") await mkdir(join(tree, "usr", folder), { recursive: true });
    await symlink(`usr/${folder}`, join(tree, folder));
  }
  const { binDirectory } = await ensureNix();
  const programs: Record<string, string> = {
    ...files,
    "/bin/busybox": "/usr/bin/busybox",
    [join(binDirectory, "nix-store")]: "/usr/bin/nix",
  };
  for (const name of PROGRAMS) programs[findProgram(name)] = `/usr/bin/${name}`;
  for (const [source, target] of Object.entries(programs)) await place(await realpath(source), join(tree, target));
  // Nix looks at the name it was called by.
  for (const name of NIX_PROGRAMS) await symlink("nix", join(tree, "usr/bin", name));
  for (const library of await findLibraries(Object.keys(programs))) await place(library, join(tree, library));
  for (const [name, target] of Object.entries(SCRIPTS)) {
    await place(join(FIXTURES, name), join(tree, target));
    await chmod(join(tree, target), 0o755);
  }
  for (const [path, text] of Object.entries(texts)) {
    await mkdir(dirname(join(tree, path)), { recursive: true });
    await writeFile(join(tree, path), text);
  }
  return await buildImage({ file: `${tree}.ext4`, tree, sizeMebibytes: 512 });
}

/** A file system with what is in `tree`; sparse. @returns `file` */
export async function buildImage(options: {
  readonly file: string;
  readonly tree: string;
  readonly sizeMebibytes: number;
}): Promise<string> {
  const { file, tree, sizeMebibytes } = options;
  const size = `${sizeMebibytes}M`;
  await runChecked(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, size], { timeoutMs: 120_000 });
  return file;
}

async function place(source: string, target: string): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  await copyFile(source, target);
}

function findProgram(name: string): string {
  const path = Bun.which(name, { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" });
  if (path === null) throw new Error(`cannot make a virtual machine: this system has no ${name}`);
  return path;
}

/** With the loader; none of a static program. */
async function findLibraries(programs: readonly string[]): Promise<ReadonlySet<string>> {
  const text = await runChecked([
    "/bin/sh",
    "-c",
    'for file; do ldd "$file" 2>/dev/null; done; true',
    "ldd",
    ...programs,
  ]);
  return new Set([...text.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)].map((match) => match[1] ?? ""));
}
