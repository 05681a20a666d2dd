/**
 * A compressed NAR in numbered parts: each goes by its own request and is sent again until the cache has it.
 *
 *     put(offset, body) ─► stored             next part
 *                       ─► expects the end    the answer to an earlier try was lost: next part
 *                       ─► expects inside     the rest of this part (empty, when only the end of the last one was lost)
 *                       ─► expects other      the cache has forgotten the upload: start anew
 *                       ─► unreachable        wait (full jitter), put again, for as long as patience lasts
 *
 * Only one part is held in memory. A NAR that fits into one part takes one request.
 */
import { createHash } from "node:crypto";
import { type BackoffLimits, fullJitterMs } from "../../../backoff.ts";
import { NixdeployError } from "../../../errors.ts";
import type { Clock, Random } from "../../../runtime.ts";
import { type FileHash, fileHashFromDigest, type NarHash } from "../../hash.ts";
import { gatherChunks } from "../compress.ts";
import type { NarPart, UploadTarget } from "./upload-target.ts";

export const PART_BYTES = 4 * 1024 * 1024;

/** No try begins when nothing of a part got through for so long. A coordinator that is upgraded is back before. */
export const PART_PATIENCE_MS = 5 * 60_000;
const BACKOFF: BackoffLimits = { baseMs: 500, maxMs: 20_000 };

export type UploadPartsOptions = {
  readonly target: Pick<UploadTarget, "putPart">;
  readonly narHash: NarHash;
  readonly narSizeBytes: number;
  readonly uploadId: string;
  readonly compressed: AsyncIterable<Uint8Array>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Called with the size of each part that has arrived. */
  readonly onSent: (bytes: number) => void;
  /** Nothing gets through, and it is tried again; called once until something does. */
  readonly onWait?: (error: NixdeployError) => void;
};

export type UploadPartsResult =
  | { readonly kind: "complete"; readonly fileHash: FileHash; readonly fileSizeBytes: number }
  /** The cache does not know this upload (any more). */
  | { readonly kind: "forgotten" };

/**
 * Sends `compressed` to its end.
 * @throws what `compressed` throws; NixdeployError "unreachable" when nothing got through for {@link PART_PATIENCE_MS};
 *   any other NixdeployError of the target at once
 */
export async function uploadParts(options: UploadPartsOptions): Promise<UploadPartsResult> {
  const hash = createHash("sha256");
  let offset = 0;
  // A part goes out when the next one begins, because the last one has to know that it is.
  let held: Uint8Array | null = null;
  const partBytes = partBytesFor(options.narSizeBytes);
  for await (const chunk of gatherChunks(options.compressed, partBytes, createTwoBuffers(partBytes))) {
    if (held !== null) {
      const sent = await sendPart(options, { offset, body: held, fileHash: null });
      if (sent === "forgotten") return { kind: "forgotten" };
      offset += held.length;
    }
    hash.update(chunk);
    held = chunk;
  }
  const body: Uint8Array = held ?? new Uint8Array(0);
  const fileHash = fileHashFromDigest(hash.digest());
  const sent = await sendPart(options, { offset, body, fileHash });
  if (sent === "forgotten") return { kind: "forgotten" };
  return { kind: "complete", fileHash, fileSizeBytes: offset + body.length };
}

/** Two in turn: one part is sent while the next one is gathered, and what has arrived is not needed again. */
function createTwoBuffers(sizeBytes: number): () => Uint8Array {
  let [next, other]: (Uint8Array | null)[] = [null, null];
  return () => {
    const buffer = next ?? new Uint8Array(sizeBytes);
    [next, other] = [other ?? null, buffer];
    return buffer;
  };
}

/** A whole part, or as much as a NAR that is smaller can become at worst (zstd's `ZSTD_compressBound`). */
function partBytesFor(narSizeBytes: number): number {
  return Math.min(PART_BYTES, narSizeBytes + Math.ceil(narSizeBytes / 256) + 1_024);
}

type Piece = Pick<NarPart, "offset" | "body" | "fileHash">;

async function sendPart(options: UploadPartsOptions, part: Piece): Promise<"stored" | "forgotten"> {
  const { narHash, narSizeBytes, uploadId, target, clock, signal } = options;
  const end = part.offset + part.body.length;
  let piece = part;
  let stuckSinceMs = clock.monotonicMs();
  for (let attempt = 0; ; ) {
    signal.throwIfAborted();
    const answer = await tryPart(() => target.putPart({ ...piece, narHash, narSizeBytes, uploadId }, signal), {
      isLast: () => clock.monotonicMs() - stuckSinceMs >= PART_PATIENCE_MS,
    });
    if (answer instanceof NixdeployError) {
      if (attempt === 0) options.onWait?.(answer);
      await clock.sleep(fullJitterMs(attempt, options.random.fraction(), BACKOFF), signal);
      attempt += 1;
      continue;
    }
    if (answer.kind === "stored") {
      if (answer.offset !== end || answer.complete !== (part.fileHash !== null)) throw describeWrongAnswer(end, answer);
      options.onSent(part.body.length);
      return "stored";
    }
    if (answer.offset === end && part.fileHash === null) {
      options.onSent(part.body.length);
      return "stored";
    }
    if (answer.offset <= piece.offset || answer.offset > end) return "forgotten";
    piece = { ...part, offset: answer.offset, body: part.body.subarray(answer.offset - part.offset) };
    stuckSinceMs = clock.monotonicMs();
    attempt = 0;
  }
}

/** @returns an answer, or the error after which it may be tried again */
async function tryPart<Answer>(
  put: () => Promise<Answer>,
  { isLast }: { readonly isLast: () => boolean },
): Promise<Answer | NixdeployError> {
  try {
    return await put();
  } catch (error) {
    const mayHelp = error instanceof NixdeployError && error.kind === "unreachable";
    if (!mayHelp || isLast()) throw error;
    return error;
  }
}

function describeWrongAnswer(
  end: number,
  answer: { readonly offset: number; readonly complete: boolean },
): NixdeployError {
  const state = answer.complete ? "complete" : "not complete";
  return new NixdeployError(
    "remote",
    `cannot upload to the cache: after ${end} bytes it claims to have ${answer.offset}, ${state}`,
    { hint: "Do the versions of nixdeploy here and there fit together?" },
  );
}
