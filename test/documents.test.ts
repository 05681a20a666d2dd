/**
 * The documents for users: every command line in them is one that the program understands, every link goes somewhere.
 * (What the commands do is shown by the tests of each.)
 */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { resolveRequest } from "../src/commands/root.ts";
import { type Document, listAnchors, listCommandLines, listLocalLinks, readDocuments } from "./support/documents.ts";

const ROOT = join(import.meta.dir, "..");
const documents = readDocuments(ROOT);

async function findWrongCommands(document: Document): Promise<string[]> {
  const wrong: string[] = [];
  for (const { line, words } of listCommandLines(document)) {
    await resolveRequest({ words: words.filter((word) => word !== "…"), version: "0" }).catch((error: Error) => {
      wrong.push(`${document.path}:${line}: nixdeploy ${words.join(" ")}: ${error.message}`);
    });
  }
  return wrong;
}

test("every command line parses", async () => {
  const wrong: string[] = [];
  for (const document of documents) {
    wrong.push(...(await findWrongCommands(document)));
  }
  expect(wrong).toEqual([]);
});

test("and one that does not would be found, wherever it stands", async () => {
  const lines = [
    "export A=b",
    "nixdeploy push ./x && nixdeploy pusch ./result   # uploads",
    "sudo nixdeploy agent \\",
    "  --nam nuc",
  ];
  const found = await findWrongCommands({
    path: "page.md",
    text: ["```sh", ...lines, "```", "nixdeploy no"].join("\n"),
  });
  expect(found).toMatchObject([
    expect.stringMatching(/^page\.md:3: nixdeploy pusch/),
    expect.stringMatching(/^page\.md:4: nixdeploy agent --nam/),
  ]);
});

test("every link goes to a file and a heading that are there", () => {
  const wrong = documents.flatMap((document) =>
    listLocalLinks(document).flatMap(({ target, line }) => {
      const [file = "", anchor] = target.split("#");
      const path = file === "" ? document.path : normalize(join(dirname(document.path), file));
      const there = existsSync(join(ROOT, path));
      const page = documents.find((candidate) => candidate.path === path);
      const known = anchor === undefined || page === undefined || listAnchors(page).has(anchor);
      return there && known ? [] : [`${document.path}:${line}: ${target}`];
    }),
  );
  // The first release puts its key there: docs/install.md says so.
  expect(wrong.filter((each) => !each.endsWith("release-key.pem"))).toEqual([]);
});
