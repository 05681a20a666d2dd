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
 * The roots are protected from garbage collection for as long as `store` stays open.
 * @throws NixdeployError "not-found" when a root is not in the store; all such roots are listed at once
 */
export async function readClosure(
  store: Pick<StoreReader, "addTempRoots" | "queryPathInfo">,
  roots: readonly StorePath[],
  signal: AbortSignal,
): Promise<PathInfo[]> {
  await store.addTempRoots(roots);
  const infos = new Map<StorePath, PathInfo>();
  const absent: StorePath[] = [];
  const waiting = [...roots];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (infos.has(path) || absent.includes(path)) continue;
    signal.throwIfAborted();
    const info = await store.queryPathInfo(path);
    if (info === null) {
      absent.push(path);
    } else {
      infos.set(path, info);
      waiting.push(...info.references.filter((reference) => !infos.has(reference)));
    }
  }
  if (absent.length > 0) throw describeAbsent(absent, roots);
  return sortReferencesFirst([...infos.values()]);
}

function describeAbsent(absent: readonly StorePath[], roots: readonly StorePath[]): NixdeployError {
  const [first] = absent;
  if (absent.length > 1) {
    return new NixdeployError("not-found", "cannot push: some paths are not in the local Nix store", {
      details: absent,
      hint: "Build them first, or push from the machine that has them.",
    });
  }
  return new NixdeployError("not-found", `cannot push ${first}: it is not in the local Nix store`, {
    hint: roots.some((root) => root === first)
      ? "Build it first, or push from the machine that has it."
      : "Another path refers to it, so the store is damaged: run `nix-store --verify`.",
  });
}
