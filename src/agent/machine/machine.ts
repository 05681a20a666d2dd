/** What the coordinator is told about this machine: who it is, and what really runs on it. Reads, changes nothing. */
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import type { DeploymentId } from "../../names.ts";
import { formatGenerationLink, parseGenerationLink } from "../../nix/profile.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { STORE_DIR } from "../../nix/store-path.ts";
import type { MachineState } from "../../protocol.ts";
import { detectSystemType, type SystemType } from "./detect.ts";
import { type Environment, readCurrentHome } from "./home.ts";
import { listBootDifferences } from "./kernel.ts";
import { listNames, readFreeBytes, readTextOrNull } from "./look.ts";
import { readProfile, readStoreLink } from "./profile-link.ts";
import { findSpecialisation, type RunningSpecialisation } from "./specialisation.ts";

export type Machine = {
  /** Nix's name of the platform, such as `x86_64-linux`. */
  readonly system: string;
  readonly hostName: string;
  /** All but the failed units, which only a service manager knows. */
  readState(inFlight: DeploymentId | null): Promise<MachineState>;
  /** What /run/current-system names; null where there is none. */
  readCurrentSystem(): Promise<StorePath | null>;
  /** Of which system this one, the running one, is a specialisation; null when it is none. */
  findSpecialisation(current: StorePath): Promise<RunningSpecialisation | null>;
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

/** Generations whose specialisation may run: a boot menu offers them all. */
const GENERATIONS_MAX = 100;

export type MachineConfig = {
  /** Absolute. */
  readonly profilePath: string;
  /** Of the user whose home a Home Manager generation would be live in. */
  readonly environment: Environment;
  /** Type of an activation on record, which decides before what the profile names; null when there is none. */
  readonly readType: () => Promise<SystemType | null>;
  /** Systems that no profile names, and that may run all the same. */
  readonly readKept: () => Promise<readonly StorePath[]>;
};

export function createMachine(config: MachineConfig): Machine {
  const { profilePath } = config;
  const find = createSpecialisationFinder(profilePath, config.readKept);
  const compare = createBootComparison();
  return {
    system: `${ARCHITECTURES[process.arch] ?? process.arch}-${process.platform}`,
    hostName: hostname(),
    readCurrentSystem: () => readStoreLink(CURRENT_SYSTEM),
    findSpecialisation: find,
    readStoreFreeBytes: () => readFreeBytes(STORE_DIR),
    async readState(inFlight) {
      const profile = await readProfile(profilePath);
      const currentPath = await readCurrent(config, profile.storePath);
      const [system, bootedPath] = [await readStoreLink(CURRENT_SYSTEM), await readStoreLink(BOOTED_SYSTEM)];
      return {
        profilePath: profile.storePath,
        generation: profile.generation,
        currentPath,
        currentBasePath: currentPath === null ? null : ((await find(currentPath))?.base ?? null),
        bootedPath,
        rebootNeeded: system === null || bootedPath === null ? null : await compare(system, bootedPath),
        storeFreeBytes: await readFreeBytes(STORE_DIR),
        inFlight,
      };
    },
  };
}

/** What is live: for Home Manager the generation in the home, else the running system. */
async function readCurrent(config: MachineConfig, profile: StorePath | null): Promise<StorePath | null> {
  const held = profile === null ? null : detectSystemType(await readTopNames(profile));
  const type = (await config.readType()) ?? held;
  return type === "home-manager" ? await readCurrentHome(config.environment) : await readStoreLink(CURRENT_SYSTEM);
}

/** The names at the top of a folder; none when it is a file, or gone. */
export async function readTopNames(path: string): Promise<ReadonlySet<string>> {
  return new Set(await listNames(path));
}

/** The platform that a system is for; null when it does not say. */
export async function readPlatform(system: StorePath): Promise<string | null> {
  return (await readTextOrNull(join(system, "system")))?.trim() || null;
}

/** Compares once for each pair of systems: they never change. */
function createBootComparison() {
  let latest: { readonly key: string; readonly different: string[] } | null = null;
  return async (current: StorePath, booted: StorePath): Promise<string[]> => {
    const key = `${current} ${booted}`;
    if (latest?.key !== key) latest = { key, different: [...(await listBootDifferences(current, booted))] };
    return latest.different;
  };
}

/** Searches once for each state of the links; a machine without specialisations is found out by two of them. */
function createSpecialisationFinder(profilePath: string, readKept: () => Promise<readonly StorePath[]>) {
  let latest: { readonly key: string; readonly found: RunningSpecialisation | null } | null = null;
  return async (current: StorePath): Promise<RunningSpecialisation | null> => {
    const profile = (await readProfile(profilePath)).storePath;
    if (current === profile) return null;
    const booted = await readStoreLink(BOOTED_SYSTEM);
    const kept = await readKept();
    const key = [current, profile, booted, ...kept].join("\n");
    if (latest?.key === key) return latest.found;
    const bases = [...kept, profile, booted].filter((path) => path !== null);
    const found =
      (await findSpecialisation(current, bases)) ??
      (await findSpecialisation(current, await readGenerations(profilePath)));
    latest = { key, found };
    return found;
  };
}

/** What the profile named, latest first. */
async function readGenerations(profilePath: string): Promise<readonly StorePath[]> {
  const directory = dirname(profilePath);
  const generations = [...(await readTopNames(directory))]
    .map(parseGenerationLink)
    .filter((link) => link?.profile === basename(profilePath))
    .sort((one, other) => (other?.generation ?? 0) - (one?.generation ?? 0))
    .slice(0, GENERATIONS_MAX);
  const paths: StorePath[] = [];
  for (const link of generations) {
    const path = link === null ? null : await readStoreLink(join(directory, formatGenerationLink(link)));
    if (path !== null) paths.push(path);
  }
  return paths;
}
