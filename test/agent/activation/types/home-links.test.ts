/** Which links of a home belong to a generation, and which of them go. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { lstat, mkdir, readdir, readlink, symlink, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type HomeFiles, photographHome, unlinkGeneration } from "../../../../src/agent/activation/types/home-links.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../../support/temporary-directory.ts";

const NEW = "/nix/store/new-home-manager-files";
const OLD = "/nix/store/old-home-manager-files";
const NONE: HomeFiles = { source: null, paths: new Set() };

let directory: TemporaryDirectory;
beforeEach(async () => {
  directory = await createTemporaryDirectory("home-links");
});
afterEach(() => directory[Symbol.asyncDispose]());

const filesOf = (source: string, ...paths: string[]): HomeFiles => ({ source, paths: new Set(paths) });

async function link(path: string, target: string): Promise<void> {
  await mkdir(dirname(directory.join(path)), { recursive: true });
  await symlink(target, directory.join(path));
}

const list = async () => (await readdir(directory.path, { recursive: true })).sort();

test("its links go, with the directories that become empty, and nothing else does", async () => {
  await link(".config/app/a", `${NEW}/.config/app/a`);
  await link(".config/other/b", `${NEW}/.config/other/b`);
  await writeFile(directory.join(".config/other/mine"), "");
  await link(".foreign", "/somewhere");
  await writeFile(directory.join(".file"), "");
  await link(".older", `${OLD}/.older`);
  const files = filesOf(NEW, ".config/app/a", ".config/other/b", ".foreign", ".file", ".older", ".missing");
  const removed = await unlinkGeneration(directory.path, files, NONE);
  expect([...removed].sort()).toEqual([".config/app/a", ".config/other/b"]);
  expect(await list()).toEqual([".config", ".config/other", ".config/other/mine", ".file", ".foreign", ".older"]);
  expect((await lstat(directory.path)).isDirectory()).toBe(true);
});

test("what the other generation has a file for is left to its script, unless it has a directory there", async () => {
  await link(".same", `${NEW}/.same`);
  await link(".becomes-directory", `${NEW}/.becomes-directory`);
  const kept = filesOf(OLD, ".same", ".becomes-directory/inside");
  expect(await unlinkGeneration(directory.path, filesOf(NEW, ".same", ".becomes-directory"), kept)).toEqual([
    ".becomes-directory",
  ]);
  expect(await readlink(directory.join(".same"))).toBe(`${NEW}/.same`);
});

test("two generations with the same files are one", async () => {
  await link(".same", `${NEW}/.same`);
  expect(await unlinkGeneration(directory.path, filesOf(NEW, ".same"), filesOf(NEW))).toEqual([]);
});

test("a second time there is nothing to do", async () => {
  await link(".config/a", `${NEW}/.config/a`);
  const files = filesOf(NEW, ".config/a");
  expect(await unlinkGeneration(directory.path, files, NONE)).toEqual([".config/a"]);
  expect(await unlinkGeneration(directory.path, files, NONE)).toEqual([]);
  expect(await list()).toEqual([]);
});

test("a photograph changes with every link that appears, goes or leads elsewhere, and with nothing else", async () => {
  const generations = [filesOf(NEW, ".a", ".b"), filesOf(OLD, ".b", ".c/d")];
  const take = () => photographHome(directory.path, generations);
  const seen = [await take()];
  await link(".a", `${NEW}/.a`);
  seen.push(await take());
  await link(".c/d", `${OLD}/.c/d`);
  seen.push(await take());
  await writeFile(directory.join(".b"), "");
  seen.push(await take());
  expect(new Set(seen).size).toBe(seen.length);
  await link(".elsewhere", "/somewhere");
  expect(await take()).toBe(seen.at(-1) ?? "");
});
