/**
 * Follows what is to be deployed through foreign caches, as agents will (`find-closure.ts`): from narinfo to narinfo, each
 * path asked of the caches in their order. What one of our own caches has is not followed: its closure is there.
 *
 * Never fails: of each path it says what is known, also when the time was up. Judging that is `judge.ts`.
 */
import type { StorePath } from "../../nix/store-path.ts";
import type { AskForeignCache, ForeignPath } from "./foreign-narinfos.ts";

/** What is known of a path. `why` is the end of a sentence. */
export type Whereabouts =
  /** By the cache's id. */
  | { readonly kind: "own"; readonly cacheId: string }
  | { readonly kind: "foreign"; readonly path: ForeignPath }
  | { readonly kind: "absent" }
  | { readonly kind: "refused"; readonly cache: string; readonly why: string }
  /** One that could not be asked may have it. */
  | { readonly kind: "unknown"; readonly cache: string; readonly why: string };

export type WalkOptions = {
  readonly paths: Iterable<StorePath>;
  /** The first own cache of each path that one has. */
  readonly findOwn: (paths: readonly StorePath[]) => Promise<ReadonlyMap<StorePath, string>>;
  /** In the order in which they are asked. */
  readonly foreign: readonly { readonly name: string; readonly ask: AskForeignCache }[];
  /** When it is aborted, nobody is asked any more. Its reason is told as why. */
  readonly deadline: AbortSignal;
};

/** Questions at once, all caches together. */
const LOOKUPS_AT_ONCE = 32;
/** Of all paths together; several times what the largest system has. A cache whose key signs without end is stopped. */
export const WALKED_REFERENCES_MAX = 200_000;

/** In waves: what one wave refers to and is not known yet is the next. */
export async function walkClosures(options: WalkOptions): Promise<ReadonlyMap<StorePath, Whereabouts>> {
  const known = new Map<StorePath, Whereabouts>();
  const caches = createCaches(options);
  let referenceCount = 0;
  const follow = async (path: StorePath) => {
    const found = referenceCount > WALKED_REFERENCES_MAX ? TOO_MANY : await caches.find(path);
    referenceCount += referencesOf(found).length;
    return referenceCount > WALKED_REFERENCES_MAX ? TOO_MANY : found;
  };
  let wave = [...new Set(options.paths)];
  while (wave.length > 0) {
    for (const [path, cacheId] of await options.findOwn(wave)) known.set(path, { kind: "own", cacheId });
    const open = wave.filter((path) => !known.has(path)).values();
    const work = async () => {
      for (const path of open) known.set(path, await follow(path));
    };
    await Promise.all(Array.from({ length: LOOKUPS_AT_ONCE }, work));
    wave = [...new Set(wave.flatMap((path) => referencesOf(known.get(path))))].filter((path) => !known.has(path));
  }
  return known;
}

const TOO_MANY: Whereabouts = {
  ...{
    kind: "refused",
    cache: "",
    why: `more than ${WALKED_REFERENCES_MAX} references had to be followed through foreign caches`,
  },
};

export function referencesOf(found: Whereabouts | undefined): readonly StorePath[] {
  return found?.kind === "foreign" ? found.path.references : [];
}

function createCaches({ foreign, deadline }: WalkOptions) {
  /** Asked no more: each question would take as long again. */
  const away = new Map<string, string>();
  const askOne = async ({ name, ask }: WalkOptions["foreign"][number], path: StorePath): Promise<Whereabouts> => {
    const why = away.get(name);
    if (why !== undefined) return { kind: "unknown", cache: name, why };
    try {
      deadline.throwIfAborted();
      const answer = await ask(path, deadline);
      if (answer.kind === "found") return { kind: "foreign", path: answer.path };
      if (answer.kind === "absent") return answer;
      if (answer.kind === "refused") return { kind: "refused", cache: name, why: answer.why };
      away.set(name, answer.why);
    } catch (error) {
      if (!deadline.aborted) throw error;
      away.set(name, String(deadline.reason instanceof Error ? deadline.reason.message : deadline.reason));
    }
    return { kind: "unknown", cache: name, why: away.get(name) ?? "" };
  };
  return {
    async find(path: StorePath): Promise<Whereabouts> {
      let worst: Whereabouts = { kind: "absent" };
      for (const cache of foreign) {
        const found = await askOne(cache, path);
        if (found.kind === "foreign") return found;
        // Trouble tells more than absence, and that somebody was not asked more than any other.
        if (worst.kind === "absent" || (worst.kind === "refused" && found.kind === "unknown")) worst = found;
      }
      return worst;
    },
  };
}
