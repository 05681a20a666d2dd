/** What is asked of the file system about what is not there, and about what is. */
import { expect, test } from "bun:test";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import {
  exists,
  isExecutableFile,
  listNames,
  mayWrite,
  readFreeBytes,
  readTextOrNull,
  resolveOrNull,
} from "../../../src/agent/machine/look.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

/** A directory with a file, a program, a link to the file and one that leads nowhere. */
async function createPlaces() {
  const directory = await createTemporaryDirectory("look");
  await writeFile(directory.join("file"), "text\n");
  await writeFile(directory.join("program"), "#!/bin/sh\n");
  await chmod(directory.join("program"), 0o755);
  await mkdir(directory.join("folder"));
  await symlink("file", directory.join("link"));
  await symlink("gone", directory.join("nowhere"));
  return directory;
}

type Answers = {
  readonly exists: boolean;
  readonly text: string | null;
  readonly leadsTo: string | null;
  readonly isProgram: boolean;
};

const NOTHING: Answers = { exists: false, text: null, leadsTo: null, isProgram: false };
const cases: readonly (readonly [name: string, path: string, answers: Answers])[] = [
  ["a file", "file", { exists: true, text: "text\n", leadsTo: "file", isProgram: false }],
  ["a program", "program", { exists: true, text: "#!/bin/sh\n", leadsTo: "program", isProgram: true }],
  ["a link to a file", "link", { exists: true, text: "text\n", leadsTo: "file", isProgram: false }],
  ["a link that leads nowhere", "nowhere", NOTHING],
  ["what is not there", "gone", NOTHING],
  ["what would be below a file", "file/below", NOTHING],
];
for (const [name, path, answers] of cases) {
  test(`${name} is no error`, async () => {
    await using places = await createPlaces();
    const looked = places.join(path);
    const root = await resolveOrNull(places.path);
    const leadsTo = answers.leadsTo === null ? null : `${root}/${answers.leadsTo}`;
    expect(await exists(looked)).toBe(answers.exists);
    expect(await readTextOrNull(looked)).toBe(answers.text);
    expect(await resolveOrNull(looked)).toBe(leadsTo);
    expect(await isExecutableFile(looked)).toBe(answers.isProgram);
    expect((await readFreeBytes(looked)) !== null).toBe(answers.exists);
    for (const whenMissing of [true, false]) {
      expect(await mayWrite(looked, { whenMissing })).toBe(answers.exists || whenMissing);
    }
  });
}

test("a folder is not a program, although it may be searched, and has names", async () => {
  await using places = await createPlaces();
  expect(await isExecutableFile(places.join("folder"))).toBe(false);
  expect(await listNames(places.join("folder"))).toEqual([]);
  expect([...(await listNames(places.path))].sort()).toEqual(["file", "folder", "link", "nowhere", "program"]);
});

test("what is not a folder has no names", async () => {
  await using places = await createPlaces();
  expect(await listNames(places.join("file"))).toEqual([]);
  expect(await listNames(places.join("gone"))).toEqual([]);
});

test("what cannot be read for another reason stays an error", async () => {
  await using places = await createPlaces();
  await symlink("loop", places.join("loop"));
  await expect(exists(places.join("loop"))).rejects.toMatchObject({ code: "ELOOP" });
  await expect(readTextOrNull(places.join("folder"))).rejects.toMatchObject({ code: "EISDIR" });
});
