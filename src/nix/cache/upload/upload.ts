/**
 * The upload engine: brings the closure of some paths from the local store into a cache.
 *
 *     closure from the daemon → which are missing → NARs, several at once, biggest first → publish, references first
 *
 * A path becomes visible in the cache only by the last step, so whatever breaks before leaves nothing half there,
 * and the same upload can simply be made again. Says nothing to anybody: `onEvent` carries what there is to tell.
 */
import { PATHS_PER_CALL_MAX } from "../../../api/caches.ts";
import type { Clock, Random } from "../../../runtime.ts";
import type { FileHash, NarHash } from "../../hash.ts";
import type { PathInfo } from "../../path-info.ts";
import { type StorePath, type StorePathHash, storePathHash } from "../../store-path.ts";
import { createGarbageLimit } from "../garbage.ts";
import { planBatches, planNars, planUpload, type UploadPlan } from "./plan-upload.ts";
import { readClosure } from "./read-closure.ts";
import { createStoreSlot, type OpenStore, type StoreReader } from "./store-reader.ts";
import { type UploadEvent, uploadNar } from "./upload-nar.ts";
import type { UploadTarget } from "./upload-target.ts";

/** Paths published by one call; their references make a request of about a kilobyte each. */
const PUBLISH_BATCH = 1_000;

export type LoadUploadPlanOptions = {
  readonly roots: readonly StorePath[];
  /** Stays open until the upload is over: it keeps the closure from being collected. */
  readonly store: Pick<StoreReader, "addTempRoots" | "queryPathInfos">;
  readonly target: Pick<UploadTarget, "findMissing">;
  readonly signal: AbortSignal;
};

/** @throws NixdeployError as `readClosure` and the target do */
export async function loadUploadPlan(options: LoadUploadPlanOptions): Promise<UploadPlan> {
  const closure = await readClosure(options.store, options.roots, { signal: options.signal });
  const hashParts = closure.map((info) => storePathHash(info.storePath));
  const missing = new Set<StorePathHash>();
  for (const batch of planBatches(hashParts, PATHS_PER_CALL_MAX)) {
    for (const hashPart of await options.target.findMissing(batch, options.signal)) missing.add(hashPart);
  }
  return planUpload(closure, missing);
}

export type RunUploadOptions = {
  readonly plan: UploadPlan;
  readonly openStore: OpenStore;
  readonly target: UploadTarget;
  /** Makes a signature, `name:base64`; null when the cache's own is enough. */
  readonly sign: ((info: PathInfo) => string) | null;
  /** NARs at once, each with a daemon connection, a compressor and a part in memory. */
  readonly jobs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly onEvent: (event: UploadEvent) => void;
};

export type UploadResult = {
  /** Paths that the cache has now and had not before. */
  readonly uploadedPaths: number;
  /** Compressed bytes of their NARs. */
  readonly uploadedBytes: number;
};

/** @throws the first error of any job, when all have stopped; nothing has been published then */
export async function runUpload(options: RunUploadOptions): Promise<UploadResult> {
  const fileHashes = new Map<NarHash, FileHash>();
  let uploadedBytes = 0;
  const limitGarbage = createGarbageLimit();
  const onEvent = (event: UploadEvent) => {
    if (event.kind === "read") limitGarbage(event.bytes);
    options.onEvent(event);
  };
  const queue = planNars(options.plan.missing);
  await runJobs(Math.min(options.jobs, queue.length), options.signal, async (signal) => {
    await using store = createStoreSlot(options.openStore, signal);
    for (let info = queue.shift(); info !== undefined; info = queue.shift()) {
      signal.throwIfAborted();
      const nar = await uploadNar({ ...options, info, store, signal, onEvent });
      fileHashes.set(info.narHash, nar.fileHash);
      uploadedBytes += nar.fileSizeBytes;
    }
  });
  await publish(options, fileHashes);
  return { uploadedPaths: options.plan.missing.length, uploadedBytes };
}

async function publish(options: RunUploadOptions, fileHashes: ReadonlyMap<NarHash, FileHash>): Promise<void> {
  const { target, sign, signal } = options;
  const paths = options.plan.missing.map((info) => {
    const fileHash = fileHashes.get(info.narHash);
    if (fileHash === undefined) throw new Error(`no NAR was uploaded for ${info.storePath}`);
    const signatures = sign === null ? info.signatures : [...new Set([...info.signatures, sign(info)])];
    return { ...info, signatures, fileHash };
  });
  for (const batch of planBatches(paths, PUBLISH_BATCH)) await target.publish(batch, signal);
}

/** Runs `job` `count` times at once; the first failure aborts the others, and is thrown when all have ended. */
async function runJobs(count: number, signal: AbortSignal, job: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const failure = new AbortController();
  const failures: unknown[] = [];
  const both = AbortSignal.any([signal, failure.signal]);
  const run = async () => {
    try {
      await job(both);
    } catch (error) {
      failures.push(error);
      failure.abort(error);
    }
  };
  await Promise.all(Array.from({ length: count }, run));
  signal.throwIfAborted();
  if (failures.length > 0) throw failures[0];
}
