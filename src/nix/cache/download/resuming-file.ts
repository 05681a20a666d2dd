/**
 * A file of the cache as one stream of bytes, however often the connection breaks: it is asked for again from the
 * byte where it broke, so that an import that has begun goes on, even across a restart of the coordinator.
 *
 * Gives up when nothing arrived for {@link NO_PROGRESS_MAX_MS}, or when the answer says that asking again is of no use.
 * Whether the bytes are the right ones is decided elsewhere (`verified-nar.ts`).
 */
import { describeError, NixdeployError } from "../../../errors.ts";
import { createSilenceLimit, type SilenceLimit } from "../../../http/silence.ts";
import type { Clock, Random } from "../../../runtime.ts";
import type { NarInfo } from "../../narinfo.ts";
import type { CacheReader, NarAnswer } from "./nar-source.ts";
import { createPatience, DENIED_MAX_MS, NO_PROGRESS_MAX_MS } from "./patience.ts";

/** A connection on which nothing arrives for so long, while we wait, is taken for dead. */
const BODY_SILENCE_MAX_MS = 60_000;

export type ResumingFileOptions = {
  readonly info: NarInfo;
  readonly cache: Pick<CacheReader, "openNar">;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Bytes that came over the wire, repeated ones included. */
  readonly onBytes: (count: number) => void;
};

type Body = Extract<NarAnswer, { kind: "body" }>;

/** @throws NixdeployError("unreachable" | "remote" | "denied") naming the path · the signal's reason */
export async function* readResumingFile(options: ResumingFileOptions): AsyncGenerator<Uint8Array> {
  const { info, signal } = options;
  const patience = createPatience(options);
  const deniedPatience = createPatience({ ...options, maxMs: DENIED_MAX_MS });
  let position = 0;
  let etag: string | null = null;
  for (;;) {
    let trouble: string;
    using attempt = createAttempt(options);
    try {
      const answer = await attempt.limit.waitFor(
        options.cache.openNar({ narUrl: info.url, startByte: position, etag, signal: attempt.limit.signal }),
      );
      if (answer.kind === "refused") throw cannotFetch(info, "remote", answer.reason);
      if (answer.kind === "denied") {
        if (!(await deniedPatience.pause())) throw cannotFetch(info, "denied", "the cache refuses our credential");
        continue;
      }
      if (answer.kind === "body") {
        etag = checkSameFile(info, answer, etag);
        for await (const chunk of skipTo(position, answer, attempt.limit)) {
          patience.progressed();
          position += chunk.length;
          options.onBytes(chunk.length);
          yield chunk;
        }
        const sizeBytes = answer.sizeBytes ?? info.fileSizeBytes ?? position;
        if (position >= sizeBytes) return;
        trouble = `the answer ended after ${position} of ${sizeBytes} bytes`;
      } else {
        trouble = answer.reason;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof NixdeployError && error.kind !== "unreachable") throw error;
      trouble = describeError(error);
    }
    if (!(await patience.pause())) {
      const minutes = NO_PROGRESS_MAX_MS / 60_000;
      throw cannotFetch(info, "unreachable", `nothing arrived for ${minutes} minutes (${trouble})`);
    }
  }
}

/** @returns the ETag to continue with */
function checkSameFile(info: NarInfo, answer: Body, etag: string | null): string | null {
  if (info.fileSizeBytes !== null && answer.sizeBytes !== null && answer.sizeBytes !== info.fileSizeBytes) {
    throw cannotFetch(
      info,
      "remote",
      `its file in the cache has ${answer.sizeBytes} bytes instead of the announced ${info.fileSizeBytes}`,
    );
  }
  if (etag !== null && answer.etag !== null && answer.etag !== etag) {
    throw cannotFetch(info, "remote", "its file in the cache changed while it was downloaded");
  }
  return answer.etag ?? etag;
}

/** The body from `position` on, whatever byte the server chose to begin with. */
async function* skipTo(position: number, answer: Body, limit: SilenceLimit): AsyncGenerator<Uint8Array> {
  let at = answer.startByte;
  if (at > position) throw new Error(`the server continued at byte ${at} instead of ${position}`);
  for await (const chunk of limit.watch(answer.body)) {
    const skip = Math.min(chunk.length, Math.max(0, position - at));
    at += chunk.length;
    if (skip < chunk.length) yield skip === 0 ? chunk : chunk.subarray(skip);
  }
}

/** One connection, which is gone when it is disposed of. */
function createAttempt({ clock, signal }: Pick<ResumingFileOptions, "clock" | "signal">) {
  const over = new AbortController();
  const limit = createSilenceLimit({
    clock,
    silenceMaxMs: BODY_SILENCE_MAX_MS,
    reason: () => new Error(`no byte for ${BODY_SILENCE_MAX_MS / 1_000} s`),
    signal: AbortSignal.any([signal, over.signal]),
  });
  const dispose = () => {
    limit[Symbol.dispose]();
    over.abort(new Error("the attempt is over"));
  };
  return { limit, [Symbol.dispose]: dispose };
}

function cannotFetch(info: NarInfo, kind: "remote" | "unreachable" | "denied", why: string): NixdeployError {
  return new NixdeployError(kind, `cannot fetch ${info.storePath}: ${why}`);
}
