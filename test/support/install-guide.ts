/**
 * The units of docs/install.md, as units of a test's system: what is documented is what runs. Unit files are taken as
 * they stand; what is written for NixOS goes through our modules by real Nix, and is rendered as NixOS does (nixos-units.ts).
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FixtureUnit } from "./builder.ts";
import type { Machine } from "./machine.ts";
import { evaluationOf } from "./nix-modules.ts";
import { renderServices } from "./nixos-units.ts";

const GUIDE = join(import.meta.dir, "../../docs/install.md");

/** The file that the document shows under this name. */
export async function readGuideFile(path: string): Promise<string> {
  const guide = await readFile(GUIDE, "utf8");
  const at = guide.indexOf(`\`${path}\``);
  const [, text] = /\n```\n([^`]*)```\n/.exec(guide.slice(at)) ?? [];
  if (at < 0 || text === undefined) throw new Error(`docs/install.md shows no file ${path}`);
  return text;
}

/** The services of the NixOS module under this heading; `prefix`/bin/nixdeploy is the program. */
export async function readGuideServices(
  machine: Machine,
  { heading, prefix }: { readonly heading: string; readonly prefix: string },
): Promise<FixtureUnit[]> {
  const guide = await readFile(GUIDE, "utf8");
  const at = guide.indexOf(`\n## ${heading}\n`);
  const [, module] = /\n```nix\n([^`]*)```\n/.exec(guide.slice(at)) ?? [];
  if (at < 0 || module === undefined) throw new Error(`docs/install.md has no module under ${heading}`);
  const file = join(machine.directory, "module.nix");
  await writeFile(file, module);
  const json = await machine.run(evaluationOf({ modules: `[ ${file} ]`, prefix, attribute: "systemd.services" }));
  return renderServices(JSON.parse(json));
}
