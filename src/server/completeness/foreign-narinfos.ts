/**
 * What foreign caches say of single store paths, as far as it counts: an answer is taken only for the path that was asked
 * for, signed by a key that the cache was declared with, and readable by agents. Downloads nothing and stores nothing.
 *
 * Good answers are remembered for a while, in memory and bounded: a closure of thousands of paths is asked for once by a
 * pipeline that starts several rollouts. That something is absent is not remembered, because it may be pushed next.
 */
import { describeError, NixdeployError } from "../../errors.ts";
import type { HttpClient } from "../../http/client.ts";
import { askNarInfo, readAnswered } from "../../nix/cache/download/http-cache.ts";
import { createPatience } from "../../nix/cache/download/patience.ts";
import { checkReadable } from "../../nix/cache/download/verify-closure.ts";
import type { NarInfo } from "../../nix/narinfo.ts";
import { createSignatureVerifier, type SignatureVerifier } from "../../nix/signature.ts";
import { parsePublicKey } from "../../nix/signing-key.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { ForeignCacheRow } from "../database/caches.ts";
import type { KnownPath } from "../database/path-graph.ts";

/** What is known of a path that a foreign cache has. The size of its file (0: not told) is not signed: it is shown, no more. */
export type ForeignPath = KnownPath;

export type ForeignAnswer =
  | { readonly kind: "found"; readonly path: ForeignPath }
  | { readonly kind: "absent" }
  /** It has something there that agents would not take. `why` is the end of a sentence. */
  | { readonly kind: "refused"; readonly why: string }
  /** Nobody knows whether it has the path. `why` is the end of a sentence. */
  | { readonly kind: "away"; readonly why: string };

/** One cache, to be asked. @throws the signal's reason */
export type AskForeignCache = (storePath: StorePath, signal: AbortSignal) => Promise<ForeignAnswer>;

export type ForeignNarInfos = { of(cache: Pick<ForeignCacheRow, "url" | "public_keys">): AskForeignCache };

export type ForeignNarInfosDeps = {
  readonly http: Pick<HttpClient, "openBody">;
  readonly clock: Clock;
  readonly random: Random;
};

/** How long one question may hang, and how long a cache that is away is asked again. */
const SILENCE_MAX_MS = 8_000;
const AWAY_MAX_MS = 2_500;
const REMEMBERED_MS = 60 * 60_000;
/** Paths and references in memory: some 10 MB, or the closures of a dozen systems. */
export const REMEMBERED_MAX = 100_000;

export function createForeignNarInfos(deps: ForeignNarInfosDeps): ForeignNarInfos {
  const memory = createMemory(deps.clock);
  /** Stands for address and keys in the memory, which has ten thousands of entries for each. */
  const numbers = new Map<string, number>();
  return {
    of({ url, public_keys }) {
      // Other keys, or another address: what was said before says nothing.
      const cache = `${url}\n${public_keys}`;
      const number = numbers.get(cache) ?? numbers.size;
      numbers.set(cache, number);
      const keys = public_keys.split("\n").map(parsePublicKey);
      const verification = { verifier: createSignatureVerifier(keys), keyNames: keys.map(({ name }) => name), url };
      return async (storePath, signal) => {
        const memoryKey = `${number} ${storePath}`;
        const known = memory.recall(memoryKey);
        if (known !== null) return { kind: "found", path: known };
        const answer = await ask(storePath, signal, { ...deps, ...verification });
        if (answer.kind === "found") memory.remember(memoryKey, answer.path);
        return answer;
      };
    },
  };
}

type Asking = ForeignNarInfosDeps & Verification;
type Verification = {
  readonly url: string;
  readonly verifier: SignatureVerifier;
  readonly keyNames: readonly string[];
};

async function ask(storePath: StorePath, signal: AbortSignal, asking: Asking): Promise<ForeignAnswer> {
  const patience = createPatience({ ...asking, signal, maxMs: AWAY_MAX_MS });
  const source = { ...asking, credential: null, silenceMaxMs: SILENCE_MAX_MS };
  try {
    for (;;) {
      const answer = await askNarInfo(storePath, signal, source);
      if (answer.kind === "text") return judge(readAnswered(answer.text, "its narinfo"), storePath, asking);
      // A bucket says "denied" of what it does not have.
      if (answer.kind !== "away") return { kind: "absent" };
      if (!(await patience.pause())) return { kind: "away", why: answer.reason };
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof NixdeployError)) throw error;
    return { kind: "refused", why: describeError(error) };
  }
}

/** @throws NixdeployError "remote" for what agents cannot read */
function judge(info: NarInfo, storePath: StorePath, { url, verifier, keyNames }: Verification): ForeignAnswer {
  if (info.storePath !== storePath) return { kind: "refused", why: `it answers with the narinfo of ${info.storePath}` };
  if (verifier.verify(info) === null) {
    const signers = info.signatures.map((signature) => signature.slice(0, signature.indexOf(":")));
    const has = signers.length === 0 ? "no signature" : `a signature that names ${signers.join(", ")}`;
    return { kind: "refused", why: `it has ${has}, none that is valid under the keys it was added with (${keyNames})` };
  }
  checkReadable(info, url);
  const { references, narSizeBytes, fileSizeBytes } = info;
  return { kind: "found", path: { references, narSizeBytes, fileSizeBytes: fileSizeBytes ?? 0 } };
}

/** The oldest is forgotten first. */
function createMemory(clock: Clock) {
  const known = new Map<string, { readonly path: ForeignPath; readonly untilMs: number }>();
  let size = 0;
  const forget = (key: string) => {
    size -= sizeOf(known.get(key)?.path);
    known.delete(key);
  };
  return {
    recall(key: string): ForeignPath | null {
      const found = known.get(key);
      if (found === undefined) return null;
      if (found.untilMs > clock.monotonicMs()) return found.path;
      forget(key);
      return null;
    },
    remember(key: string, path: ForeignPath) {
      forget(key);
      known.set(key, { path, untilMs: clock.monotonicMs() + REMEMBERED_MS });
      size += sizeOf(path);
      for (const oldest of known.keys()) {
        if (size <= REMEMBERED_MAX) return;
        forget(oldest);
      }
    },
  };
}

function sizeOf(path: ForeignPath | undefined): number {
  return path === undefined ? 0 : 1 + path.references.length;
}
