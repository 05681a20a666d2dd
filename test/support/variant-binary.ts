/**
 * Another version of the program, really built: its source with another version number and, if wanted, one more
 * migration of the database. The product has no path for such things, so they are written into a copy of it.
 */
import { cp, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkResult, runProcess } from "./processes.ts";

const ROOT = join(import.meta.dir, "../..");

export type VariantOptions = {
  /** Empty; for the copy and the binary. */
  readonly directory: string;
  /** What `--version` says. */
  readonly version: string;
  /** Statements of a migration after all others. */
  readonly migration: { readonly id: string; readonly statements: readonly string[] };
};

/** Takes a few seconds. @returns the binary's path */
export async function buildVariant({ directory, version, migration }: VariantOptions): Promise<string> {
  for (const name of ["src", "build.ts", "tsconfig.json"]) {
    await cp(join(ROOT, name), join(directory, name), { recursive: true });
  }
  await symlink(join(ROOT, "node_modules"), join(directory, "node_modules"));
  const { version: _, ...rest }: Record<string, unknown> = JSON.parse(
    await readFile(join(ROOT, "package.json"), "utf8"),
  );
  await writeFile(join(directory, "package.json"), JSON.stringify({ ...rest, version }));
  const file = join(directory, "src/server/database/migrations.ts");
  const source = await readFile(file, "utf8");
  const end = "\n];\n";
  if (source.split(end).length !== 2) throw new Error(`${file}: it has not one end of a list, but several or none`);
  await writeFile(file, source.replace(end, `\n  ${JSON.stringify(migration)},${end}`));
  const command = [process.execPath, "build.ts", "--outfile", join(directory, "nixdeploy")];
  checkResult(command, await runProcess(command, { cwd: directory, timeoutMs: 120_000 }));
  return join(directory, "nixdeploy");
}
