/** Nix's files as `cache use` writes them: not over what somebody else has written meanwhile. */
import { expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { openFiles, saveFiles } from "../../src/commands/cache-use-files.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const ours = { conf: "a = b\n# ours\n", netrc: "machine x login nixdeploy password p\n", holdsToken: true };

test("what is as it was read is written, the token first", async () => {
  await using directory = await createTemporaryDirectory("nix-files");
  const [conf, netrc] = [directory.join("nix.conf"), directory.join("netrc")];
  await writeFile(conf, "a = b\n");
  const files = await openFiles({ env: { NIX_CONF_DIR: directory.path } }, "system");
  expect(await saveFiles(files, ours)).toEqual([netrc, conf]);
  expect([await readFile(conf, "utf8"), await readFile(netrc, "utf8")]).toEqual([ours.conf, ours.netrc]);
});

test.each(["nix.conf", "netrc"])(
  "a %s that somebody has changed since stays, and the other file, too",
  async (name) => {
    await using directory = await createTemporaryDirectory("nix-files");
    await writeFile(directory.join("nix.conf"), "a = b\n");
    await writeFile(directory.join("netrc"), "");
    const files = await openFiles({ env: { NIX_CONF_DIR: directory.path } }, "system");
    await writeFile(directory.join(name), "by somebody else\n");
    const before = [await readFile(files.confPath, "utf8"), await readFile(files.netrcPath, "utf8")];
    await expect(saveFiles(files, ours)).rejects.toMatchObject({
      kind: "conflict",
      message: `cannot change ${directory.join(name)}: somebody else has changed it meanwhile`,
    });
    expect([await readFile(files.confPath, "utf8"), await readFile(files.netrcPath, "utf8")]).toEqual(before);
  },
);
