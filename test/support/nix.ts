/**
 * Nix for tests and demo: finds one that lives outside /nix (every test machine has a /nix of its own, which would
 * hide it), and installs Debian's package where there is none and we are root.
 *
 * Leaves the user's Nix alone: his store is never written to, because all work happens in machines (machine.ts), and
 * his configuration is neither read nor changed, because each machine passes its own NIX_CONF_DIR.
 */
import { accessSync, constants, existsSync, realpathSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { runChecked, runProcess } from "./processes.ts";

export type Nix = {
  /** Holds nix-store, nix-env, nix-daemon, nix, …; never below /nix. */
  readonly binDirectory: string;
  /** "2.8.0" */
  readonly version: string;
};

/**
 * No substituter: tests use no internet, and Nix would ask cache.nixos.org before the first build. No build users and
 * no sandbox: the fixtures are built by root with the host's /bin/sh. Signatures are required, as on every device.
 */
export const NIX_CONF = `substituters =
build-users-group =
sandbox = false
require-sigs = true
experimental-features = nix-command flakes
narinfo-cache-negative-ttl = 0
fsync-metadata = false
`;

const SYSTEM_NIX_CONF = "/etc/nix/nix.conf";

/**
 * Finds Nix, or installs it.
 * @throws Error that says what to install when it is missing and we are not root on Debian
 */
export async function ensureNix(): Promise<Nix> {
  const found = findNix();
  if (found !== null) return describeNix(found);
  if (process.getuid?.() !== 0 || !(await isDebian())) {
    throw new Error(
      "cannot run real Nix: no nix-store on PATH outside /nix\n" +
        "Install it from the distribution (Debian, Ubuntu: apt-get install --no-install-recommends nix-bin), or run this as root there.",
    );
  }
  await installNix();
  const installed = findNix();
  if (installed === null)
    throw new Error("cannot run real Nix: nix-bin was installed, but there is no nix-store on PATH");
  return describeNix(installed);
}

function findNix(): string | null {
  const directories = [...(process.env["PATH"] ?? "").split(":"), "/usr/bin", "/usr/local/bin"];
  for (const directory of directories) {
    const program = join(directory, "nix-store");
    if (directory.startsWith("/") && isExecutable(program) && !realpathSync(program).startsWith("/nix/"))
      return directory;
  }
  return null;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function isDebian(): Promise<boolean> {
  const release = existsSync("/etc/os-release") ? await readFile("/etc/os-release", "utf8") : "";
  return /^(ID|ID_LIKE)=.*debian/m.test(release) && existsSync("/usr/bin/apt-get");
}

async function installNix(): Promise<void> {
  // Before the first Nix command: Debian's package brings no configuration, and Nix's defaults fail here.
  if (!existsSync(SYSTEM_NIX_CONF)) {
    await mkdir(dirname(SYSTEM_NIX_CONF), { recursive: true });
    await writeFile(SYSTEM_NIX_CONF, NIX_CONF);
  }
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"];
  const install = [...apt, "install", "-y", "--no-install-recommends", "nix-bin"];
  const first = await runProcess(install, { env, timeoutMs: 180_000 });
  if (first.exitCode === 0) return;
  await runChecked([...apt, "update"], { env, timeoutMs: 120_000 });
  await runChecked(install, { env, timeoutMs: 180_000 });
}

/** @throws Error when the Nix there does not run */
export async function describeNix(binDirectory: string): Promise<Nix> {
  // Without a store: even this command would make the host's /nix/store.
  const text = await runChecked([join(binDirectory, "nix-store"), "--version"], { env: { NIX_REMOTE: "dummy://" } });
  const version = /(\d+\.\d+\S*)$/.exec(text)?.[1];
  if (version === undefined) throw new Error(`cannot read the version of Nix from "${text}"`);
  return { binDirectory, version };
}
