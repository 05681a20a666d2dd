/**
 * One NAR from the local store into the cache: read, check, compress, send in parts. Anew from the first byte when
 * the cache has forgotten the upload (it was restarted), a bounded number of times.
 */
import { NixdeployError } from "../../../errors.ts";
import { drawId } from "../../../names.ts";
import type { Clock, Random } from "../../../runtime.ts";
import type { FileHash } from "../../hash.ts";
import type { PathInfo } from "../../path-info.ts";
import { compressZstd } from "../compress.ts";
import { checkNar } from "./check-nar.ts";
import type { StoreSlot } from "./store-reader.ts";
import { uploadParts } from "./upload-parts.ts";
import type { UploadTarget } from "./upload-target.ts";

/** Starts of one NAR. */
const NAR_ATTEMPTS_MAX = 5;

export type UploadEvent =
  /** NAR bytes read from the store; negative when a NAR starts anew. */
  | { readonly kind: "read"; readonly bytes: number }
  /** Compressed bytes that have arrived. */
  | { readonly kind: "sent"; readonly bytes: number }
  | { readonly kind: "uploaded"; readonly info: PathInfo; readonly fileSizeBytes: number }
  | { readonly kind: "start-anew"; readonly info: PathInfo }
  /** Nothing gets through, for this reason; it is tried again for some minutes. */
  | { readonly kind: "waiting"; readonly why: string };

export type UploadNarOptions = {
  readonly info: PathInfo;
  readonly store: StoreSlot;
  readonly target: Pick<UploadTarget, "putPart">;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly onEvent: (event: UploadEvent) => void;
};

export type UploadedNar = { readonly fileHash: FileHash; readonly fileSizeBytes: number };

/** @throws NixdeployError as `checkNar` and `uploadParts` do, and "unreachable" when no start came to its end */
export async function uploadNar(options: UploadNarOptions): Promise<UploadedNar> {
  const { info, onEvent } = options;
  for (let attempt = 0; attempt < NAR_ATTEMPTS_MAX; attempt += 1) {
    const result = await tryNar(options);
    if (result.kind === "complete") {
      onEvent({ kind: "uploaded", info, fileSizeBytes: result.fileSizeBytes });
      return result;
    }
    onEvent({ kind: "start-anew", info });
    // A connection that was left in mid NAR is of no more use.
    await options.store.discard();
  }
  throw new NixdeployError(
    "unreachable",
    `cannot push ${info.storePath}: the coordinator forgot the upload ${NAR_ATTEMPTS_MAX} times`,
    { hint: "It seems to restart again and again: look at its log, then push again." },
  );
}

async function tryNar(options: UploadNarOptions) {
  const { info, onEvent, signal } = options;
  const store = await options.store.open();
  let readBytes = 0;
  const nar = checkNar(store.narFromPath(info.storePath), info, (bytes) => {
    readBytes += bytes;
    onEvent({ kind: "read", bytes });
  });
  const result = await uploadParts({
    target: options.target,
    narHash: info.narHash,
    narSizeBytes: info.narSizeBytes,
    uploadId: drawId(options.random),
    compressed: compressZstd(nar, { sizeBytes: info.narSizeBytes }),
    clock: options.clock,
    random: options.random,
    signal,
    onSent: (bytes) => onEvent({ kind: "sent", bytes }),
    onWait: ({ message }) => onEvent({ kind: "waiting", why: message }),
  });
  if (result.kind === "forgotten") onEvent({ kind: "read", bytes: -readBytes });
  return result;
}
