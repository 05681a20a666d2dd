import { expect, test } from "bun:test";
import { chmod, mkdir, rmdir, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { openSocketFolder } from "../../../src/client/ssh/socket-folder.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

test("the folder of sockets is ours alone, and the same each time", async () => {
  await using temporary = await createTemporaryDirectory("sockets");
  const usual = join(temporary.path, `nixdeploy-ssh-${process.getuid?.()}`);
  expect(await openSocketFolder(temporary.path)).toBe(usual);
  expect((await stat(usual)).mode & 0o777).toBe(0o700);
  expect(await openSocketFolder(temporary.path)).toBe(usual);

  // Open to others: somebody may have put something there.
  await chmod(usual, 0o770);
  const other = await openSocketFolder(temporary.path);
  expect(other).toStartWith(`${usual}-`);
  expect((await stat(other)).mode & 0o777).toBe(0o700);

  await rmdir(usual);
  await mkdir(join(temporary.path, "trap"), { mode: 0o700 });
  await symlink("trap", usual);
  expect(await openSocketFolder(temporary.path)).toStartWith(`${usual}-`);
});
