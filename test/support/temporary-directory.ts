/**
 * A directory that lives as long as a test: `await using directory = await createTemporaryDirectory("push")`.
 *
 * Nix makes everything in a store read-only, so removal first gives the owner back the right to write.
 * Kept short on purpose (`/tmp/nixdeploy-push-abc123`): Unix socket paths below it must stay under 108 bytes.
 */
import { chmod, lstat, mkdtemp, readdir, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type TemporaryDirectory = AsyncDisposable & {
  /** Absolute, without symlinks. */
  readonly path: string;
  /** A path inside. */
  join(...names: string[]): string;
};

/** Makes an empty directory; disposing it removes it with everything inside. `name` says whose it is. */
export async function createTemporaryDirectory(name: string): Promise<TemporaryDirectory> {
  const path = await mkdtemp(join(await realpath(tmpdir()), `nixdeploy-${name}-`));
  return {
    path,
    join: (...names) => join(path, ...names),
    [Symbol.asyncDispose]: () => removeTree(path),
  };
}

/** Removes a tree that may contain read-only directories; a path that is not there is fine. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch {
    // Read-only directories, as a store has them (root does not get here). A second failure is reported.
    await makeWritable(path);
    await rm(path, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function makeWritable(path: string): Promise<void> {
  const stats = await lstat(path);
  if (!stats.isDirectory()) return;
  await chmod(path, stats.mode | 0o700);
  for (const name of await readdir(path)) await makeWritable(join(path, name));
}
