/**
 * Where this repository is, and which release its pages name: package.json says both (`repository`, `version`), the pages and
 * the template repeat it, because neither can look it up. `bun scripts/repository.ts` writes it into them. A test compares.
 */
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const PLACES = ["docs/*.md", "README.md", "nix/templates/**/*.{nix,yml,md}"];
/** A flake's address, and an action's. */
const FLAKE = /(?<=\bgithub:)[\w.-]+\/nixdeploy\b(?!-)/g;
const ACTION = /(?<=\buses: )[\w.-]+\/nixdeploy@v\S+/g;

export type Repository = {
  /** "OWNER/nixdeploy" */
  readonly name: string;
  readonly version: string;
};

export async function readRepository(): Promise<Repository> {
  const { repository, version } = await Bun.file(join(ROOT, "package.json")).json();
  const [, name] = /^github:([\w.-]+\/nixdeploy)$/.exec(String(repository)) ?? [];
  if (name === undefined) throw new Error(`package.json says no repository github:OWNER/nixdeploy: ${repository}`);
  return { name, version: String(version) };
}

/** Pure. */
export function withRepository(text: string, { name, version }: Repository): string {
  return text.replaceAll(FLAKE, name).replaceAll(ACTION, `${name}@v${version}`);
}

/** From the root, those that may name it. */
export function listPlaces(): string[] {
  const found = PLACES.flatMap((pattern) => [...new Bun.Glob(pattern).scanSync({ cwd: ROOT, dot: true })]);
  return found.sort();
}

if (import.meta.main) {
  const repository = await readRepository();
  for (const path of listPlaces()) {
    const file = Bun.file(join(ROOT, path));
    const text = await file.text();
    const written = withRepository(text, repository);
    if (written !== text) await Bun.write(file, written);
  }
}
