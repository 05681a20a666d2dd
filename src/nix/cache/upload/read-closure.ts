/**
 * The closure of some paths, read from the local store: every path that they refer to, directly or through others.
 */
import { NixdeployError } from "../../../errors.ts";
import { sortReferencesFirst } from "../../closure.ts";
import type { PathInfo } from "../../path-info.ts";
import type { StorePath } from "../../store-path.ts";
import type { StoreReader } from "./store-reader.ts";

/**
 * The closure of `roots`, each path after all those it refers to.
 *
 * The roots are protected from garbage collection for as long as `store` stays open. That of a derivation (`.drv`) is
 * all that is needed to build it elsewhere: the derivations and sources that it refers to.
 * @param options.verb what the closure is read for, and `place` where the store is, for messages
 * @throws NixdeployError "not-found" when a root is not in the store; all such roots are listed at once
 */
export async function readClosure(
  store: Pick<StoreReader, "addTempRoots" | "queryPathInfos">,
  roots: readonly StorePath[],
  options: { readonly signal: AbortSignal; readonly verb?: string; readonly place?: string },
): Promise<PathInfo[]> {
  const { verb = "push", place = "the local Nix store", signal } = options;
  await store.addTempRoots(roots);
  const infos = new Map<StorePath, PathInfo>();
  const absent: StorePath[] = [];
  const asked = new Set<StorePath>();
  // Level by level, so that a store far away is asked as often as the closure is deep, and not once for each path.
  for (let level = [...new Set(roots)]; level.length > 0; ) {
    signal.throwIfAborted();
    for (const path of level) asked.add(path);
    const found = await store.queryPathInfos(level);
    const next = new Set<StorePath>();
    for (const [index, path] of level.entries()) {
      const info = found[index] ?? null;
      if (info === null) absent.push(path);
      else infos.set(path, info);
      for (const reference of info?.references ?? []) if (!asked.has(reference)) next.add(reference);
    }
    level = [...next];
  }
  if (absent.length > 0) throw describeAbsent(absent, { roots, verb, place });
  return sortReferencesFirst([...infos.values()]);
}

function describeAbsent(
  absent: readonly StorePath[],
  options: { readonly roots: readonly StorePath[]; readonly verb: string; readonly place: string },
): NixdeployError {
  const { roots, verb, place } = options;
  const [first] = absent;
  if (absent.length > 1) {
    return new NixdeployError("not-found", `cannot ${verb}: some paths are not in ${place}`, {
      details: absent,
      hint: `Build them first, or ${verb} from the machine that has them.`,
    });
  }
  return new NixdeployError("not-found", `cannot ${verb} ${first}: it is not in ${place}`, {
    hint: roots.some((root) => root === first)
      ? `Build it first, or ${verb} from the machine that has it.`
      : "Another path refers to it, so the store is damaged: run `nix-store --verify`.",
  });
}
