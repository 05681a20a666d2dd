/**
 * Whether the narinfos that a cache sent are the closure that was asked for, signed by keys this device trusts. Runs
 * before a single byte is downloaded, because a cache is not trusted with anything but the transport. Pure.
 */
import { NixdeployError } from "../../../errors.ts";
import { sortReferencesFirst } from "../../closure.ts";
import type { NarInfo } from "../../narinfo.ts";
import { NixParseError } from "../../parse-error.ts";
import type { SignatureVerifier } from "../../signature.ts";
import type { StorePath } from "../../store-path.ts";
import { parseReadableCompression } from "../compression.ts";
import { resolveNarUrl } from "./nar-url.ts";

export type VerifyClosureOptions = {
  readonly storePath: StorePath;
  /** As parsed, in any order. More than the closure is harmless: the rest is dropped. */
  readonly narInfos: readonly NarInfo[];
  readonly verifier: SignatureVerifier;
  /** For the message: `default-1, …`. */
  readonly trustedKeyNames: readonly string[];
  readonly cacheUrl: string;
};

/**
 * The closure of `storePath`, each path after its references.
 *
 * @throws NixdeployError("remote") naming the path: absent, listed twice, in a cycle, not signed by a trusted key, at a
 * URL outside the cache, or compressed in a way that this version cannot read
 */
export function verifyClosure(options: VerifyClosureOptions): readonly NarInfo[] {
  const closure = sorted(collectClosure(options.storePath, options.narInfos));
  const unsigned = closure.filter((info) => options.verifier.verify(info) === null);
  const [first] = unsigned;
  if (first !== undefined) throw notTrusted(first, { count: unsigned.length, ...options });
  for (const info of closure) checkReadable(info, options.cacheUrl);
  return closure;
}

/** The same for the narinfo of one path. @throws NixdeployError("remote") naming the path */
export function verifyPath(info: NarInfo, options: Omit<VerifyClosureOptions, "narInfos">): void {
  if (info.storePath !== options.storePath) {
    throw new NixdeployError(
      "remote",
      `cannot fetch ${options.storePath}: ${options.cacheUrl} answers with the narinfo of ${info.storePath}`,
    );
  }
  if (options.verifier.verify(info) === null) throw notTrusted(info, { count: 1, ...options });
  checkReadable(info, options.cacheUrl);
}

/** @throws NixdeployError("remote") when it is at a URL outside the cache, or compressed in a way that nobody here can read */
export function checkReadable(info: NarInfo, cacheUrl: string): void {
  resolveNarUrl({ cacheUrl, narUrl: info.url });
  if (parseReadableCompression(info.compression) === null) {
    throw new NixdeployError(
      "remote",
      `cannot fetch ${info.storePath}: it is compressed with ${info.compression}, which this version cannot read`,
    );
  }
}

function collectClosure(storePath: StorePath, narInfos: readonly NarInfo[]): NarInfo[] {
  const byPath = new Map(narInfos.map((info) => [info.storePath, info]));
  if (byPath.size !== narInfos.length) {
    throw new NixdeployError("remote", `cannot fetch ${storePath}: the cache lists a path of its closure twice`);
  }
  const closure = new Map<StorePath, NarInfo>();
  const open: { path: StorePath; referrer: StorePath | null }[] = [{ path: storePath, referrer: null }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (closure.has(next.path)) continue;
    const info = byPath.get(next.path);
    if (info === undefined) throw incomplete(storePath, next.path, next.referrer);
    closure.set(info.storePath, info);
    for (const path of info.references) open.push({ path, referrer: info.storePath });
  }
  return [...closure.values()];
}

/** Each path after its references. @throws NixdeployError("remote") for a cycle */
export function sorted<Info extends NarInfo>(closure: readonly Info[]): readonly Info[] {
  try {
    return sortReferencesFirst(closure);
  } catch (error) {
    if (!(error instanceof NixParseError)) throw error;
    throw new NixdeployError("remote", `cannot fetch the closure: ${error.reason}`, { cause: error });
  }
}

function incomplete(storePath: StorePath, missing: StorePath, referrer: StorePath | null): NixdeployError {
  const why = referrer === null ? "the cache does not have it" : `the cache lacks ${missing}, which ${referrer} needs`;
  return new NixdeployError("remote", `cannot fetch ${storePath}: ${why}`, {
    hint: "Push the path again: nixdeploy push PATH uploads the whole closure.",
  });
}

function notTrusted(
  info: NarInfo,
  options: { readonly count: number; readonly trustedKeyNames: readonly string[] },
): NixdeployError {
  const signers = info.signatures.map((signature) => signature.slice(0, signature.indexOf(":")));
  const has = signers.length === 0 ? "no signature" : `a signature that names ${signers.join(", ")}`;
  const more = options.count > 1 ? ` (and ${options.count - 1} more like it)` : "";
  return new NixdeployError(
    "remote",
    `cannot accept ${info.storePath}${more}: it has ${has}, none that is valid under the keys this device trusts (${options.trustedKeyNames.join(", ") || "none"})`,
    { hint: "Give the agent the right key with --trusted-public-key, or push the path again with the key it trusts." },
  );
}
