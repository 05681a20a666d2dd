import { expect, test } from "bun:test";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { readPushPaths } from "../../src/client/push/push-paths.ts";
import { requireStorePath, resolveArgument } from "../../src/client/store-argument.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { failureOf } from "../support/failure.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

const PATH = `/nix/store/${EXAMPLE_HASH_PART}-tool`;
const OTHER = `/nix/store/${EXAMPLE_HASH_PART}-other`;

test("store paths, paths inside, and symlinks over several hops lead to the store path", async () => {
  await using directory = await createTemporaryDirectory("args");
  await mkdir(directory.join("deep"));
  await symlink(PATH, directory.join("result"));
  await symlink("../result", directory.join("deep", "second"));
  await symlink(directory.join("deep", "second"), directory.join("third"));
  await symlink(`${PATH}/bin/tool`, directory.join("tool"));
  await symlink("deep", directory.join("alias"));
  const texts = [
    PATH,
    `${PATH}/`,
    `${PATH}/bin/x`,
    "result",
    "./result",
    "deep/second",
    "third",
    "tool",
    "alias/second",
  ];
  for (const text of texts) expect(String(await requireStorePath(text, directory.path))).toBe(PATH);
});

test("what leads elsewhere is told apart", async () => {
  await using directory = await createTemporaryDirectory("args");
  await writeFile(directory.join("file"), "x");
  await symlink("loop", directory.join("loop"));
  const resolveHere = (text: string) => resolveArgument(text, directory.path);
  expect(await resolveHere("file")).toEqual({ kind: "outside", path: directory.join("file") });
  expect(await resolveHere("nothing")).toEqual({ kind: "absent" });
  expect(await resolveHere("file/below")).toEqual({ kind: "absent" });
  expect((await failureOf(resolveHere("loop"))).message).toContain("no end");
  for (const text of ["/nix/store", "/nix/store/x", "/nix/store/.links"]) {
    expect((await failureOf(resolveHere(text))).message).toContain("is no store path");
  }
});

test.each([
  ["file", "not in the Nix store", "./result"],
  ["mycache", "no such file", "Build it first"],
  ["./nothing", "no such file", "Build it first"],
  ["result", "no such file", "Build it first"],
])("push %s is a usage error that says what is right", async (text, why, hint) => {
  await using directory = await createTemporaryDirectory("args");
  await writeFile(directory.join("file"), "x");
  const error = await failureOf(requireStorePath(text, directory.path));
  expect(error.kind).toBe("usage");
  expect(error.message).toContain(why);
  expect(error.hint).toContain(hint);
});

async function* chunks(...texts: string[]) {
  for (const text of texts) yield new TextEncoder().encode(text);
}

test("paths come from arguments, else from standard input, each once", async () => {
  const options = {
    cwd: "/",
    readStdin: () => chunks(`${PATH}\n\t${OTHER.slice(0, 20)}`, `${OTHER.slice(20)} ${PATH}\n`),
  };
  expect((await readPushPaths({ ...options, words: [] })).map(String)).toEqual([PATH, OTHER]);
  expect((await readPushPaths({ ...options, words: [OTHER] })).map(String)).toEqual([OTHER]);
  const error = await failureOf(readPushPaths({ cwd: "/", words: [], readStdin: () => chunks(" \n") }));
  expect([error.kind, error.hint]).toEqual(["usage", "For example: nixdeploy push ./result"]);
});
