/** What the coordinator is told about this machine: who it is, and what really runs on it. Reads, changes nothing. */
import { readdir, statfs } from "node:fs/promises";
import { hostname } from "node:os";
import type { DeploymentId } from "../names.ts";
import type { StorePath } from "../nix/store-path.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import type { MachineState } from "../protocol.ts";
import { readProfile, readStoreLink } from "./profile-link.ts";
import { hasCode, isMissing } from "./system-error.ts";

export type Machine = {
  /** Nix's name of the platform, such as `x86_64-linux`. */
  readonly system: string;
  readonly hostName: string;
  readState(inFlight: DeploymentId | null): Promise<MachineState>;
  /** What /run/current-system names; null where there is none. */
  readCurrentSystem(): Promise<StorePath | null>;
  /** Free bytes of the file system of the store; null when it cannot be told. */
  readStoreFreeBytes(): Promise<number | null>;
};

const CURRENT_SYSTEM = "/run/current-system";
const BOOTED_SYSTEM = "/run/booted-system";

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "x86_64",
  arm64: "aarch64",
  ia32: "i686",
  riscv64: "riscv64",
  loong64: "loongarch64",
};

/** @param profilePath absolute */
export function createMachine(profilePath: string): Machine {
  return {
    system: `${ARCHITECTURES[process.arch] ?? process.arch}-${process.platform}`,
    hostName: hostname(),
    readCurrentSystem: () => readStoreLink(CURRENT_SYSTEM),
    readStoreFreeBytes,
    async readState(inFlight) {
      const profile = await readProfile(profilePath);
      return {
        profilePath: profile.storePath,
        generation: profile.generation,
        currentPath: await readStoreLink(CURRENT_SYSTEM),
        bootedPath: await readStoreLink(BOOTED_SYSTEM),
        storeFreeBytes: await readStoreFreeBytes(),
        inFlight,
      };
    },
  };
}

async function readStoreFreeBytes(): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(STORE_DIR);
    return bavail * bsize;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** The names at the top of a store path; none when it is a file, or gone. */
export async function readTopNames(path: StorePath): Promise<ReadonlySet<string>> {
  try {
    return new Set(await readdir(path));
  } catch (error) {
    if (isMissing(error) || hasCode(error, "ENOTDIR")) return new Set();
    throw error;
  }
}
