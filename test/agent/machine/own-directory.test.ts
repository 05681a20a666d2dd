/** Whose a state directory is, before anything is written into it. */
import { expect, test } from "bun:test";
import { requireOwnDirectory } from "../../../src/agent/machine/own-directory.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

test("one's own, and one that is not there yet, may be used; somebody else's may not", async () => {
  await using directory = await createTemporaryDirectory("own-directory");
  await requireOwnDirectory(directory.path);
  await requireOwnDirectory(directory.join("not", "yet"));
  const another = (process.getuid?.() ?? 0) + 1;
  await expect(requireOwnDirectory(directory.path, another)).rejects.toMatchObject({
    kind: "host",
    message: expect.stringContaining("it belongs to the user with the id"),
    hint: "Do it as that user.",
  });
});
