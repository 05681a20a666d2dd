/**
 * Brings a closure from one store into another, daemon to daemon: only what is missing, several paths at once, references
 * first, each checked against its hash on the way, nothing ever on disk in between.
 *
 *   closure → temporary roots over there → which are missing? → room? → each: NarFromPath → AddToStoreNar → all valid?
 *
 * A path is valid over there as a whole or not at all, so whoever is interrupted, killed, or loses the connection goes on
 * with what is missing: here by itself, a few times, or by the next call. The roots last until the result is disposed.
 */
import { fullJitterMs } from "../../backoff.ts";
import { NixdeployError } from "../../errors.ts";
import { mustDaemonCheck } from "../../nix/cache/download/daemon-trust.ts";
import { runSchedule } from "../../nix/cache/download/run-schedule.ts";
import { createGarbageLimit } from "../../nix/cache/garbage.ts";
import { checkNar } from "../../nix/cache/upload/check-nar.ts";
import { readClosure } from "../../nix/cache/upload/read-closure.ts";
import type { DaemonConnection } from "../../nix/daemon/connection.ts";
import { ConnectionLostError } from "../../nix/daemon/daemon-error.ts";
import type { DaemonTrust } from "../../nix/daemon/handshake.ts";
import type { PathInfo } from "../../nix/path-info.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { formatBytes } from "../../quantity.ts";
import type { Clock, Random } from "../../runtime.ts";

export type Store = {
  /** "the Nix store of root@nuc" */
  readonly name: string;
  open(signal: AbortSignal): Promise<DaemonConnection>;
};

export type TransferEvent =
  /** Told once more after a lost connection. */
  | { readonly kind: "planned"; readonly pathsTotal: number; readonly missing: readonly PathInfo[] }
  | { readonly kind: "bytes"; readonly count: number }
  | { readonly kind: "path"; readonly info: PathInfo }
  | { readonly kind: "lost"; readonly why: string };

export type TransferOptions = {
  readonly roots: readonly StorePath[];
  readonly from: Store;
  readonly to: Store;
  /**
   * Sees to it that what is missing will be accepted, before the first byte; "reopen" begins anew with other connections
   * or other signatures, and must not be the answer again.
   */
  readonly prepare: (missing: readonly PathInfo[], trust: DaemonTrust) => Promise<"ready" | "reopen">;
  /** Signs what is sent, or refuses what is not signed as it must be. */
  readonly vet: (info: PathInfo) => PathInfo;
  /** Explains why the receiving daemon refuses a path. */
  readonly explain: (error: unknown, info: PathInfo) => unknown;
  /** Where it goes; null: that cannot be told. */
  readonly freeBytes: number | null;
  /** Paths at once, each by connections of its own. */
  readonly jobs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly onEvent: (event: TransferEvent) => void;
};

/** Disposing lets go of the roots. */
export type Transferred = AsyncDisposable & {
  readonly pathsTotal: number;
  readonly copiedPaths: number;
  /** Of NARs, uncompressed. */
  readonly copiedBytes: number;
};

/** Tries without a path in between. */
const LOST_MAX = 4;
const RETRY = { baseMs: 1_000, maxMs: 15_000 };
/** File systems need more than the bytes of the files. */
const SPACE_FACTOR = 1.1;

/** @throws NixdeployError · the signal's reason */
export async function transferClosure(options: TransferOptions): Promise<Transferred> {
  const { clock, random, signal, onEvent } = options;
  const total = { copiedPaths: 0, copiedBytes: 0 };
  let wasConnected = false;
  for (let attempt = 0; ; ) {
    const before = total.copiedPaths;
    try {
      const transferred = await transferOnce(options, total, () => {
        wasConnected = true;
      });
      if (transferred !== null) return transferred;
    } catch (error) {
      signal.throwIfAborted();
      if (!wasConnected || !isLostConnection(error)) throw error;
      attempt = total.copiedPaths > before ? 0 : attempt + 1;
      if (attempt === LOST_MAX) throw error;
      onEvent({ kind: "lost", why: error instanceof Error ? error.message : String(error) });
      await clock.sleep(fullJitterMs(attempt, random.fraction(), RETRY), signal);
    }
  }
}

/** @returns null to begin anew */
async function transferOnce(
  options: TransferOptions,
  total: { copiedPaths: number; copiedBytes: number },
  onConnected: () => void,
): Promise<Transferred | null> {
  const { roots, from, to, signal, onEvent } = options;
  await using opened = new AsyncDisposableStack();
  const source = opened.use(await from.open(signal));
  const closure = await readClosure(source, roots, { signal, verb: "copy", place: from.name });
  const target = opened.use(await to.open(signal));
  onConnected();
  const paths = closure.map((info) => info.storePath);
  await target.addTempRoots(paths);
  const valid = await target.queryValidPaths(paths);
  const absent = closure.filter((info) => !valid.has(info.storePath));
  if ((await options.prepare(absent, target.trust)) === "reopen") return null;
  const missing = absent.map(options.vet);
  onEvent({ kind: "planned", pathsTotal: closure.length, missing });
  checkSpace(missing, options);
  await using extra = new AsyncDisposableStack();
  const workers = [
    { source, target },
    ...(await openWorkers(Math.min(options.jobs, missing.length) - 1, extra, options)),
  ];
  const limitGarbage = createGarbageLimit();
  const onBytes = (count: number) => {
    limitGarbage(count);
    onEvent({ kind: "bytes", count });
  };
  await runSchedule({
    ...{ missing, workers, signal },
    importPath: async (info, worker) => {
      const nar = checkNar(worker.source.narFromPath(info.storePath), info, onBytes);
      try {
        await worker.target.addToStoreNar({ info, nar, checkSignatures: mustDaemonCheck(worker.target.trust) });
      } catch (error) {
        throw options.explain(error, info);
      }
      total.copiedPaths += 1;
      total.copiedBytes += info.narSizeBytes;
      onEvent({ kind: "path", info });
    },
  });
  await checkAllValid(paths, target, options);
  const kept = opened.move();
  return { ...total, pathsTotal: closure.length, [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose]() };
}

type Worker = { readonly source: DaemonConnection; readonly target: DaemonConnection };

/** As many as can be had: sshd limits the sessions of a connection, and one worker will do. */
async function openWorkers(count: number, stack: AsyncDisposableStack, options: TransferOptions): Promise<Worker[]> {
  const { from, to, signal } = options;
  const opening = Array.from({ length: Math.max(0, count) }, async () => {
    const source = stack.use(await from.open(signal));
    return { source, target: stack.use(await to.open(signal)) };
  });
  const opened = await Promise.allSettled(opening);
  signal.throwIfAborted();
  return opened.flatMap((worker) => (worker.status === "fulfilled" ? [worker.value] : []));
}

function checkSpace(missing: readonly PathInfo[], { freeBytes, to }: TransferOptions): void {
  const neededBytes = Math.ceil(missing.reduce((sum, info) => sum + info.narSizeBytes, 0) * SPACE_FACTOR);
  if (freeBytes === null || freeBytes >= neededBytes) return;
  throw new NixdeployError(
    "host",
    `cannot copy into ${to.name}: the disk is full: it needs ${formatBytes(neededBytes)}, and ${formatBytes(freeBytes)} are free`,
    { hint: "Free some space there, for example with `nix-collect-garbage --delete-older-than 30d`." },
  );
}

async function checkAllValid(
  paths: readonly StorePath[],
  target: DaemonConnection,
  { to }: TransferOptions,
): Promise<void> {
  const valid = await target.queryValidPaths(paths);
  const lost = paths.filter((path) => !valid.has(path));
  if (lost.length === 0) return;
  throw new NixdeployError(
    "host",
    `cannot copy into ${to.name}: ${lost.length} paths are gone again, such as ${lost[0]}`,
    {
      hint: "A garbage collection may be running there: try again when it is done.",
    },
  );
}

/** Whether it may be better next time: the connection ended, and nobody said no. */
function isLostConnection(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ConnectionLostError) return true;
    if (cause instanceof NixdeployError && cause.kind === "unreachable") return true;
  }
  return false;
}
