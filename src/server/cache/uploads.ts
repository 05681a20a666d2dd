/**
 * Uploads of NARs in parts (see `src/api/caches.ts`, PUT …/nars/NARHASH). Parts of one upload are taken one after the other; what
 * has arrived of a part that broke off counts, and the answer to the next one says where to go on. The state of an
 * upload is in memory: after a restart the client starts that NAR anew.
 */
import { NixdeployError } from "../../errors.ts";
import type { FileHash, NarHash } from "../../nix/hash.ts";
import type { Clock } from "../../runtime.ts";
import type { BlobStore, BlobWriter } from "./blob-store.ts";
import type { KeyedLock } from "./keyed-lock.ts";
import { createNarValidator, type NarValidator } from "./nar-validator.ts";

export type UploadPart = {
  /** Whose upload it is: the cache and the id that the client drew. */
  readonly key: string;
  readonly offset: number;
  readonly narHash: NarHash;
  readonly narSizeBytes: number;
  /** Given with the last part: what the whole file's hash must be. */
  readonly fileHash: FileHash | null;
  readonly body: AsyncIterable<Uint8Array>;
  /** Called with what is stored, before anybody may remove it again. */
  readonly record: (file: StoredFile) => Promise<void>;
};

export type StoredFile = { readonly fileHash: FileHash; readonly fileSizeBytes: number };

export type UploadAnswer =
  | { readonly kind: "more"; readonly offset: number }
  | { readonly kind: "complete"; readonly offset: number; readonly fileHash: FileHash }
  /** The part does not begin where the upload stands. */
  | { readonly kind: "wrong-offset"; readonly offset: number };

export type Uploads = AsyncDisposable & {
  /**
   * @throws NixdeployError `refused` when the bytes are not what they claim to be, `host` when the disk fails (the
   *   upload is gone then), `unreachable` when it may go on later; whatever the body throws when it breaks off
   */
  put(part: UploadPart): Promise<UploadAnswer>;
};

type Upload = {
  readonly writer: BlobWriter;
  readonly validator: NarValidator;
  readonly narHash: NarHash;
  readonly narSizeBytes: number;
  offset: number;
  touchedMs: number;
  busy: boolean;
};

/** Uploads at once; each holds a file and a decompressor. */
const UPLOADS_MAX = 256;
/** A part whose sender says nothing for this long has broken off, though nobody told us. */
const PART_SILENCE_MAX_MS = 60_000;
/** An upload without a new part for this long makes room for others. */
const UPLOAD_IDLE_MAX_MS = 15 * 60 * 1000;

export type UploadsDeps = {
  readonly blobs: BlobStore;
  readonly clock: Clock;
  /** See `workspaces/removals.ts`. */
  readonly narLock: KeyedLock;
};

export function createUploads(deps: UploadsDeps): Uploads {
  const uploads = new Map<string, Upload>();
  let sequence = 0;

  const discard = async (key: string, upload: Upload) => {
    if (uploads.get(key) === upload) uploads.delete(key);
    upload.validator.abort();
    await upload.writer.abort();
  };
  const begin = async (part: UploadPart): Promise<Upload> => {
    const now = deps.clock.monotonicMs();
    for (const [key, upload] of uploads) {
      if (!upload.busy && now - upload.touchedMs > UPLOAD_IDLE_MAX_MS) await discard(key, upload);
    }
    if (uploads.size >= UPLOADS_MAX) {
      throw new NixdeployError("unreachable", `cannot start the upload: ${UPLOADS_MAX} others are under way`);
    }
    sequence += 1;
    const upload: Upload = {
      writer: await storing(() => deps.blobs.beginWrite(`${process.pid}-${sequence}`)),
      validator: createNarValidator(part),
      narHash: part.narHash,
      narSizeBytes: part.narSizeBytes,
      offset: 0,
      touchedMs: now,
      busy: false,
    };
    if (uploads.has(part.key)) {
      await discard(part.key, upload);
      throw new NixdeployError("usage", "cannot start the upload: another one of the same id has just begun");
    }
    uploads.set(part.key, upload);
    return upload;
  };
  return {
    async put(part) {
      const known = uploads.get(part.key);
      if (known === undefined && part.offset > 0) return { kind: "wrong-offset", offset: 0 };
      const upload = known ?? (await begin(part));
      if (upload.busy)
        throw new NixdeployError("unreachable", "cannot take this part: the one before is still coming in");
      if (upload.narHash !== part.narHash || upload.narSizeBytes !== part.narSizeBytes) {
        throw new NixdeployError("usage", "cannot take this part: it belongs to another NAR than the parts before");
      }
      if (upload.offset !== part.offset) return { kind: "wrong-offset", offset: upload.offset };
      upload.busy = true;
      try {
        const body = withoutSilence(part.body, deps.clock);
        const forget = () => uploads.delete(part.key);
        return await takePart(upload, { ...part, body }, { narLock: deps.narLock, forget });
      } catch (error) {
        // A body that broke off may be continued; bytes that are wrong may not.
        if (error instanceof NixdeployError && error.kind !== "unreachable") await discard(part.key, upload);
        throw error;
      } finally {
        upload.busy = false;
        upload.touchedMs = deps.clock.monotonicMs();
      }
    },
    async [Symbol.asyncDispose]() {
      for (const [key, upload] of uploads) await discard(key, upload);
    },
  };
}

async function takePart(
  upload: Upload,
  part: UploadPart,
  { narLock, forget }: Pick<UploadsDeps, "narLock"> & { readonly forget: () => void },
): Promise<UploadAnswer> {
  for await (const chunk of part.body) {
    await upload.validator.push(chunk);
    await storing(() => upload.writer.append(chunk));
    upload.offset += chunk.length;
  }
  if (part.fileHash === null) return { kind: "more", offset: upload.offset };
  const fileHash = await upload.validator.finish();
  if (fileHash !== part.fileHash) {
    throw new NixdeployError("refused", "cannot store the NAR: the file's hash is not the one it claims");
  }
  using _turn = await narLock.take(fileHash);
  await storing(() => upload.writer.commit(fileHash));
  forget();
  await part.record({ fileHash, fileSizeBytes: upload.offset });
  return { kind: "complete", offset: upload.offset, fileHash };
}

async function* withoutSilence(body: AsyncIterable<Uint8Array>, clock: Clock): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  for (;;) {
    const answered = new AbortController();
    const silence = clock.sleep(PART_SILENCE_MAX_MS, answered.signal).then((): never => {
      throw new NixdeployError("unreachable", "cannot take this part: nothing more of it came for a minute");
    });
    const next = await Promise.race([chunks.next(), silence]).finally(() => answered.abort());
    if (next.done === true) return;
    yield next.value;
  }
}

async function storing<Value>(write: () => Promise<Value>): Promise<Value> {
  try {
    return await write();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    throw new NixdeployError("host", `cannot store the NAR: writing failed (${code})`, {
      cause: error,
      hint:
        code === "ENOSPC"
          ? "The coordinator's disk is full: make room there and push again."
          : "See the coordinator's log.",
    });
  }
}
