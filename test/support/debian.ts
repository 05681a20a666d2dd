/**
 * Programs that tests take from Debian's packages, installed where they are missing. One installation at a time, however
 * many test processes ask; nothing that is installed is started.
 */
import { existsSync } from "node:fs";
import { runChecked, runProcess } from "./processes.ts";

const LOCK_FILE = "/tmp/nixdeploy-test-apt.lock";
const INSTALL_TIMEOUT_MS = 300_000;

/** The policy is asked by the packages' own scripts; 101 is "do not start services" (Debian Policy, invoke-rc.d). */
const INSTALL = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\\nexit 101\\n' > $policy
  chmod +x $policy
fi
get() { apt-get -q -o DPkg::Lock::Timeout=120 "$@"; }
get install -y --no-install-recommends "$@" || { get update && get install -y --no-install-recommends "$@"; }
`;

/** @throws Error that says what to install when something is missing and we are not root on Debian */
export async function ensureDebianPackages(names: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of names) if (!(await isInstalled(name))) missing.push(name);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new Error(`cannot run this test without ${missing.join(" ")}: install it, or run this as root on Debian`);
  }
  await runChecked(["flock", LOCK_FILE, "/bin/sh", "-c", INSTALL, "install", ...missing], {
    env: { DEBIAN_FRONTEND: "noninteractive" },
    timeoutMs: INSTALL_TIMEOUT_MS,
  });
}

async function isInstalled(name: string): Promise<boolean> {
  const { stdout } = await runProcess(["dpkg-query", "--status", name]).catch(() => ({ stdout: "" }));
  return stdout.includes("\nStatus: install ok installed\n");
}
