/**
 * Everything from "I want this path" to "its whole closure is valid in my store and cannot be collected": the order of
 * steps that makes a fetch safe against a lying cache, a running garbage collection and a full disk.
 *
 *   plan, every signature verified (`find-closure.ts`) → temporary roots for the closure → what is missing? → room? → import → all valid?
 *
 * Roots come before the question what is valid: a path that is valid now and collected a moment later would otherwise
 * be missed (Nix's own race 1, and race 2 of daemons before 2.35: hence the last question, and its repetition).
 */
import { NixdeployError } from "../../../errors.ts";
import { formatBytes } from "../../../quantity.ts";
import type { Clock, Random } from "../../../runtime.ts";
import type { DaemonConnection } from "../../daemon/connection.ts";
import type { StorePath } from "../../store-path.ts";
import { type FoundPath, findClosure } from "./find-closure.ts";
import { type ImportProgress, importClosure } from "./import-closure.ts";
import type { ClosureSource } from "./nar-source.ts";

/** Imports at once, each on a connection of its own. A 1 GB closure on two cores took 13.4 s with 1, 11.7 s with 4. */
const IMPORTS_AT_ONCE = 4;
/** File systems need more than the bytes of the files. */
const SPACE_FACTOR = 1.1;
/** How often paths that vanish under our roots are fetched again. */
const ROUNDS_MAX = 3;

export type FetchClosureOptions = {
  readonly storePath: StorePath;
  /** In the order in which they are asked. */
  readonly sources: readonly ClosureSource[];
  /** The connection whose temporary roots keep the closure; the caller keeps it open as long as it needs them. */
  readonly rootDaemon: DaemonConnection;
  readonly connectDaemon: (options: { readonly signal: AbortSignal }) => Promise<DaemonConnection>;
  /** Free bytes where the store is; null when that cannot be told. */
  readonly readStoreFreeBytes: () => Promise<number | null>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Called once it is known what has to come, before the first byte. */
  readonly onPlanned: (plan: FetchPlan) => void;
  readonly onProgress: (progress: ImportProgress) => void;
};

export type FetchPlan = {
  readonly pathsTotal: number;
  readonly missingPaths: number;
  /** Compressed, as far as the cache says. */
  readonly missingBytes: number;
};

export type FetchedClosure = {
  /** Each path after its references. */
  readonly paths: readonly StorePath[];
  /** Compressed bytes received. */
  readonly fetchedBytes: number;
};

/** @throws NixdeployError · the signal's reason */
export async function fetchClosure(options: FetchClosureOptions): Promise<FetchedClosure> {
  const { storePath, rootDaemon } = options;
  const closure = await findClosure(options);
  const paths = closure.map((info) => info.storePath);
  await rootDaemon.addTempRoots(paths);
  let fetchedBytes = 0;
  for (let round = 0; ; round += 1) {
    const missing = await findMissing(rootDaemon, closure);
    if (round === 0) {
      options.onPlanned({
        pathsTotal: closure.length,
        missingPaths: missing.length,
        missingBytes: missing.reduce((sum, info) => sum + (info.fileSizeBytes ?? info.narSizeBytes), 0),
      });
    }
    if (missing.length === 0) return { paths, fetchedBytes };
    if (round === ROUNDS_MAX) throw vanishing(storePath, missing);
    await checkSpace(missing, options);
    fetchedBytes += await importMissing(missing, options);
  }
}

async function findMissing(daemon: DaemonConnection, closure: readonly FoundPath[]): Promise<FoundPath[]> {
  const valid = await daemon.queryValidPaths(closure.map((info) => info.storePath));
  return closure.filter((info) => !valid.has(info.storePath));
}

async function checkSpace(missing: readonly FoundPath[], options: FetchClosureOptions): Promise<void> {
  const freeBytes = await options.readStoreFreeBytes();
  if (freeBytes === null) return;
  const neededBytes = Math.ceil(missing.reduce((sum, info) => sum + info.narSizeBytes, 0) * SPACE_FACTOR);
  if (freeBytes >= neededBytes) return;
  throw new NixdeployError(
    "host",
    `cannot fetch ${options.storePath}: the disk is full: it needs ${formatBytes(neededBytes)}, the store has ${formatBytes(freeBytes)} free`,
    { hint: "Free some space on the device, for example with nix-collect-garbage --delete-older-than 30d." },
  );
}

async function importMissing(missing: readonly FoundPath[], options: FetchClosureOptions): Promise<number> {
  await using daemons = new AsyncDisposableStack();
  const connections: DaemonConnection[] = [];
  while (connections.length < Math.min(IMPORTS_AT_ONCE, missing.length)) {
    connections.push(daemons.use(await options.connectDaemon({ signal: options.signal })));
  }
  return await importClosure({ ...options, missing, daemons: connections });
}

function vanishing(storePath: StorePath, missing: readonly FoundPath[]): NixdeployError {
  const [first] = missing;
  return new NixdeployError(
    "host",
    `cannot fetch ${storePath}: ${missing.length} imported paths are not valid, such as ${first?.storePath}`,
    { hint: "A garbage collection may be running: try again when it is done." },
  );
}
