/**
 * Command-line arguments that mean a store path: `./result`, `/run/current-system`, `/nix/store/…/bin/x`.
 *
 * Symlinks are followed until the path lies in the store, like `nix copy` does it (Nix `src/libstore/store-api.cc`,
 * `followLinksToStore`); what lies inside a store path means the path. Whether the store has it is not asked here.
 */
import { lstat, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { describeError, NixdeployError } from "../errors.ts";
import { parseCacheName } from "../names.ts";
import { quoteExcerpt } from "../nix/parse-error.ts";
import { STORE_DIR, type StorePath, storePathContaining } from "../nix/store-path.ts";
import { capitalizeFirst } from "../sentence.ts";

const SYMLINK_HOPS_MAX = 40;

export type ResolvedArgument =
  | { readonly kind: "store-path"; readonly storePath: StorePath }
  /** Something that exists outside the store; absolute. */
  | { readonly kind: "outside"; readonly path: string }
  | { readonly kind: "absent" };

/** @throws NixdeployError "usage" for a path in the store directory that is none, and for symlinks without end */
export async function resolveArgument(text: string, cwd: string): Promise<ResolvedArgument> {
  if (text.includes("\0")) {
    throw new NixdeployError("usage", `cannot use ${quoteExcerpt(text)}: no path has a NUL character in it`);
  }
  let path = resolve(cwd, text);
  for (let hop = 0; hop < SYMLINK_HOPS_MAX; hop += 1) {
    const storePath = storePathContaining(path);
    if (storePath !== null) return { kind: "store-path", storePath };
    if (path === STORE_DIR || path.startsWith(`${STORE_DIR}/`)) {
      throw new NixdeployError("usage", `cannot use ${quoteExcerpt(text)}: it is no store path`, {
        hint: `A store path is ${STORE_DIR}/HASH-NAME, with a hash of 32 characters, such as \`nix build --print-out-paths\` prints.`,
      });
    }
    const next = await followOnce(path, text);
    if (next === null) return { kind: "absent" };
    if (next.isEnd) return { kind: "outside", path };
    path = next.path;
  }
  throw new NixdeployError("usage", `cannot use ${quoteExcerpt(text)}: its symlinks have no end`);
}

/** What to type when a word that is no path was meant as the name of something; one sentence. */
export type NameHint = (name: string) => string;

/**
 * For arguments that must be store paths.
 * @throws NixdeployError "usage" with a hint for whatever is not
 */
export async function requireStorePath(text: string, cwd: string, nameHint?: NameHint): Promise<StorePath> {
  const resolved = await resolveArgument(text, cwd);
  switch (resolved.kind) {
    case "store-path":
      return resolved.storePath;
    case "outside":
      throw new NixdeployError("usage", `cannot use ${quoteExcerpt(text)}: it is not in the Nix store`, {
        hint: capitalizeFirst(`${hintForName(text, nameHint)}give a store path or a symlink to one, such as ./result.`),
      });
    case "absent":
      throw describeAbsent(text, nameHint);
    default:
      return resolved satisfies never;
  }
}

/** Nothing is called `text`. */
export function describeAbsent(text: string, nameHint?: NameHint): NixdeployError {
  return new NixdeployError("usage", `cannot use ${quoteExcerpt(text)}: there is no such file`, {
    hint: capitalizeFirst(`${hintForName(text, nameHint)}build it first: \`nix build\` makes ./result.`),
  });
}

/** The hint and "Else "; "" without one, or when `text` cannot be a name. */
function hintForName(text: string, nameHint: NameHint | undefined): string {
  return nameHint !== undefined && isName(text) ? `${nameHint(text)} Else ` : "";
}

function isName(text: string): boolean {
  try {
    parseCacheName(text);
    return !/^result(-\w+)?$/.test(text);
  } catch {
    // Too long, or with a character that no name has.
    return false;
  }
}

/** One symlink further, or the end of them; null when nothing is there. */
async function followOnce(path: string, text: string): Promise<{ path: string; isEnd: boolean } | null> {
  try {
    const stats = await lstat(path);
    if (stats.isSymbolicLink()) return { path: resolve(dirname(path), await readlink(path)), isEnd: false };
    // Directories above may be symlinks into the store, such as /run/current-system.
    const real = join(await realpath(dirname(path)), basename(path));
    return { path: real, isEnd: real === path };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : null;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw new NixdeployError("host", `cannot use ${quoteExcerpt(text)}: ${describeError(error)}`, { cause: error });
  }
}
