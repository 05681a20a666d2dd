/** The paths that `push` is given: arguments, or words on standard input. */
import { NixdeployError } from "../errors.ts";
import type { StorePath } from "../nix/store-path.ts";
import { requireStorePath } from "./store-argument.ts";

const STDIN_BYTES_MAX = 64 * 1024 * 1024;

export type ReadPushPathsOptions = {
  readonly words: readonly string[];
  readonly readStdin: () => AsyncIterable<Uint8Array>;
  readonly cwd: string;
};

/**
 * Each path once, in the order given.
 * @throws NixdeployError "usage" when there is none, or one that is not in the store
 */
export async function readPushPaths({ words, readStdin, cwd }: ReadPushPathsOptions): Promise<StorePath[]> {
  const given = words.length > 0 ? words : await readWords(readStdin());
  if (given.length === 0) {
    throw new NixdeployError("usage", "cannot push: no path was given, neither as an argument nor on standard input", {
      hint: "For example: nixdeploy push ./result",
    });
  }
  const paths = new Set<StorePath>();
  for (const word of given) paths.add(await requireStorePath(word, cwd));
  return [...paths];
}

async function readWords(input: AsyncIterable<Uint8Array>): Promise<string[]> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of input) {
    sizeBytes += chunk.length;
    if (sizeBytes > STDIN_BYTES_MAX) {
      throw new NixdeployError("usage", `cannot read the paths: standard input has more than ${STDIN_BYTES_MAX} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks)
    .toString("utf8")
    .split(/\s+/)
    .filter((word) => word !== "");
}
