/** Past findings: inputs that once broke a rule of parser.ts, as files in `corpus/<parser>/`, one input each. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const CORPUS_DIR = join(import.meta.dir, "corpus");

export type Finding = { readonly parser: string; readonly name: string; readonly input: Uint8Array };

/** Sorted. */
export function loadCorpus(): Finding[] {
  const folders = readdirSync(CORPUS_DIR, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.flatMap(({ name: parser }) =>
    readdirSync(join(CORPUS_DIR, parser))
      .sort()
      .map((name) => ({ parser, name, input: new Uint8Array(readFileSync(join(CORPUS_DIR, parser, name))) })),
  );
}

/** @returns the new file's path; null when the input is there already */
export function saveFinding(parser: string, input: Uint8Array): string | null {
  const name = createHash("sha256").update(input).digest("hex").slice(0, 12);
  const file = join(CORPUS_DIR, parser, name);
  if (existsSync(file)) return null;
  mkdirSync(join(CORPUS_DIR, parser), { recursive: true });
  writeFileSync(file, input);
  return file;
}
