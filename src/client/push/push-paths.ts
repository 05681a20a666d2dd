/** The paths that `push` and `copy` are given: arguments, or words on standard input. */
import { describeError, NixdeployError } from "../../errors.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { readBounded } from "../read-bounded.ts";
import { quoteShellWord } from "../ssh/shell-words.ts";
import { type NameHint, requireStorePath } from "../store-argument.ts";

const PATHS_SHOWN_MAX = 3;
const STDIN_BYTES_MAX = 64 * 1024 * 1024;

export type ReadPushPathsOptions = {
  readonly words: readonly string[];
  readonly readStdin: () => AsyncIterable<Uint8Array>;
  readonly cwd: string;
  /** What is done with them, for messages; default: push. */
  readonly verb?: "push" | "copy";
};

/**
 * Each path once, in the order given.
 * @throws NixdeployError "usage" when there is none, or one that is not in the store
 */
export async function readPushPaths(options: ReadPushPathsOptions): Promise<StorePath[]> {
  const { words, readStdin, cwd, verb = "push" } = options;
  const given = words.length > 0 ? words : await readWords(readStdin);
  if (given.length === 0) {
    const message = `cannot ${verb}: no path was given, neither as an argument nor on standard input`;
    throw new NixdeployError("usage", message, {
      hint: `For example: nixdeploy ${verb === "push" ? "push" : "copy --to ssh://root@nuc"} ./result`,
    });
  }
  const paths = new Set<StorePath>();
  for (const [index, word] of given.entries()) {
    paths.add(
      await requireStorePath(word, cwd, index === 0 && verb === "push" ? hintForCache(given.slice(1)) : undefined),
    );
  }
  return [...paths];
}

/** Users of Cachix write the cache's name first. */
function hintForCache(others: readonly string[]): NameHint {
  const paths = others.length === 0 ? "./result" : others.slice(0, PATHS_SHOWN_MAX).map(quoteShellWord).join(" ");
  return (name) => `To name a cache, write --cache ${name}: \`nixdeploy push --cache ${name} ${paths}\`.`;
}

async function readWords(readStdin: ReadPushPathsOptions["readStdin"]): Promise<string[]> {
  try {
    const bytes = await readBounded(readStdin(), STDIN_BYTES_MAX);
    if (bytes === null) throw new Error(`it has more than ${STDIN_BYTES_MAX} bytes`);
    return bytes
      .toString("utf8")
      .split(/\s+/)
      .filter((word) => word !== "");
  } catch (cause) {
    throw new NixdeployError("usage", `cannot read the paths from standard input: ${describeError(cause)}`, { cause });
  }
}
