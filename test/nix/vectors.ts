/** Reads the golden vectors (test/vectors/README.md says where they come from). */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const VECTORS_DIR = join(import.meta.dir, "../vectors");

export function readVector(path: string): Uint8Array {
  return new Uint8Array(readFileSync(join(VECTORS_DIR, path)));
}

export function readVectorText(path: string): string {
  return readFileSync(join(VECTORS_DIR, path), "utf8");
}

/** The rows of a table; each cell is a column of the line. */
export function readVectorTable(path: string): string[][] {
  return readVectorText(path)
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t"));
}

/** Every narinfo that Nix wrote, with its path below test/vectors. */
export function readNarInfoVectors(): { path: string; text: string }[] {
  const paths = readdirSync(join(VECTORS_DIR, "narinfo"), { recursive: true, encoding: "utf8" });
  return paths
    .filter((path) => path.endsWith(".narinfo"))
    .sort()
    .map((path) => ({ path: `narinfo/${path}`, text: readVectorText(`narinfo/${path}`) }));
}
