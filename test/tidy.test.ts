/** The repository keeps the rules of the house (support/house-rules.ts), and the rules bite. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { findFaults, findSharedPackages, listImports, type SourceFile } from "./support/house-rules.ts";

const ROOT = join(import.meta.dir, "..");
const NOT_OURS = [".git", "node_modules", "dist", ".toolchain", ".test-report", "bun.lock", "LICENSE"];
/** Suites that hide tests on purpose, to be noticed by the test runner. */
const RUNNER_FIXTURES = "test/fixtures/runner/";
const VECTORS = "test/vectors";
const TEXT_BYTES_MAX = 1024 * 1024;

function listFiles(folder: string): SourceFile[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !NOT_OURS.includes(entry.name))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        return listFiles(path);
      }
      const isText = entry.isFile() && statSync(path).size <= TEXT_BYTES_MAX;
      const text = isText ? readFileSync(path, "utf8") : "";
      return text.includes("\0") ? [] : [{ path: relative(ROOT, path), text }];
    });
}

const files = listFiles(ROOT).filter(({ path }) => !path.startsWith(RUNNER_FIXTURES));

test("every file keeps the rules", () => {
  expect(files.length).toBeGreaterThan(20);
  expect(files.flatMap(findFaults)).toEqual([]);
});

test("packages of one file are imported by one file", () => {
  expect(findSharedPackages(files)).toEqual([]);
});

test("every folder of golden data says where it comes from", () => {
  const folders = readdirSync(join(ROOT, VECTORS), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const readme = (path: string) => files.find((file) => file.path === path)?.text ?? "";
  const silent = folders
    .map(({ name }) => name)
    .filter((name) => readme(`${VECTORS}/${name}/README.md`) === "" && !readme(`${VECTORS}/README.md`).includes(name));
  expect(silent).toEqual([]);
});

describe("a rule bites", () => {
  const bad: readonly (readonly [path: string, text: string, fault: string])[] = [
    ["src/server/app.ts", 'import type { Agent } from "../agent/agent.ts";', "server may not import agent"],
    ["src/agent/agent.ts", 'import {\n  a,\n  b,\n} from "../server/app.ts";', "agent may not import server"],
    ["src/nix/narinfo.ts", 'import { x } from "../errors.ts";', "formats may not import contracts"],
    ["src/nix/nar/reader.ts", 'import { readFileSync } from "node:fs";', "src/nix is pure"],
    ["src/nix/daemon/wire.ts", 'import { x } from "../cache/push.ts";', "daemon may not import cache"],
    ["src/protocol.ts", 'const x = await import("./nix/cache/push.ts");', "contracts may not import cache"],
    ["src/client/rest.ts", 'import { x } from "../agent/connection.ts";', "client may not import agent"],
    ["src/commands/push.ts", 'import { x } from "../main.ts";', "commands may not import main"],
    ["src/main.ts", 'import { x } from "./server/app.ts";', "main may not import server"],
    ["src/agent/a.ts", 'import { Hono } from "hono/tiny";', "hono/tiny, which belongs to src/server/"],
    ["src/agent/a.ts", 'import { request } from "undici";', "undici, which has no owner"],
    ["src/agent/a.ts", 'import "left-pad";', "left-pad, which has no owner"],
    ["src/server/a.ts", 'import { Database } from "bun:sqlite";', "belongs to src/server/database/"],
    ["src/agent/a.ts", "const now = Date.now();", "time and chance"],
    ["src/agent/a.ts", "const now = new Date();", "time and chance"],
    ["src/agent/a.ts", "setTimeout(run, 5);", "timers belong to Clock"],
    ["src/agent/a.ts", "const home = process.env.HOME;", "the environment is read in"],
    ["src/agent/a.ts", "process.exitCode = 1;", "only src/main.ts ends the process"],
    ["src/agent/a.ts", "const response = await fetch(url);", "the one HTTP client"],
    ["src/commands/a.ts", "defineCommand({ run, subCommands });", "runs both"],
    ["src/nix/index.ts", 'export { a } from "./a.ts";', "no barrels"],
    ["src/nix/index.ts", 'export * from "./a.ts";', "no barrels"],
    ["src/nix/index.ts", 'export type { A } from "./a.ts";', "no barrels"],
    ["src/nix/long.ts", "x;\n".repeat(401), "401 lines"],
    ["test/a.test.ts", ["test.", 'skip("later", () => {});'].join(""), "hides tests"],
    ["test/a.test.ts", ["describe.concurrent.", 'only("this", () => {});'].join(""), "hides tests"],
    ["README.md", ["cd ", "/wo", "rk/main"].join(""), "a path of somebody's machine"],
    ["flake.nix", ["https://registry.", "npmjs.org"].join(""), "the host of a package registry"],
    ["src/a.ts", ["// FIX", "ME later"].join(""), "unfinished business"],
  ];
  for (const [path, text, fault] of bad) {
    test(`${path}: ${text.slice(0, 60).replaceAll("\n", " ")}`, () => {
      expect(findFaults({ path, text }).join("\n")).toContain(fault);
    });
  }

  test("two files with a package of one", () => {
    const text = 'import { execa } from "execa";';
    expect(findSharedPackages([{ path: "src/a.ts", text }])).toEqual([]);
    expect(
      findSharedPackages([
        { path: "src/a.ts", text },
        { path: "src/b.ts", text },
      ]),
    ).toHaveLength(1);
  });
});

describe("what is right is left alone", () => {
  const good: readonly (readonly [path: string, text: string])[] = [
    ["src/server/app.ts", 'import { a } from "../protocol.ts";\nimport { parseNarInfo } from "../nix/narinfo.ts";'],
    ["src/client/local.ts", 'import { activate } from "../agent/activation/run.ts";'],
    ["src/nix/hash.ts", 'import { createHash } from "node:crypto";\nimport { x } from "./nix32.ts";'],
    ["src/nix/cache/push.ts", 'import { connectDaemon } from "../daemon/connection.ts";'],
    ["src/agent/a.ts", "// Date.now() is not used here\n/* nor fetch(url) */ const sleep = clock.sleep(5, signal);"],
    ["src/server/app.ts", "return { fetch(request, server) { return app.fetch(request, { server }); } };"],
    ["src/server/app.ts", "type Handler = { fetch(request: Request, from: { control: boolean }): Promise<Response> };"],
    ["src/agent/a.ts", "const at = new Date(nowMs).toISOString();"],
    ["src/a.ts", "export const parse = (from: string) => from;"],
    ["test/a.test.ts", 'test("runs only once", () => {});'],
  ];
  for (const [path, text] of good) {
    test(`${path}: ${text.slice(0, 60).replaceAll("\n", " ")}`, () => {
      expect(findFaults({ path, text })).toEqual([]);
    });
  }
});

test("all kinds of imports are seen", () => {
  const text = [
    'import a from "one";',
    'import type { B } from "./two.ts";',
    'import {\n  c,\n  type D,\n} from "./three.ts";',
    'import "./four.ts";',
    'export { e } from "./five.ts";',
    'const f = await import("./six.ts");',
    '// import g from "./not.ts";',
    "const text = `import h from`;",
  ].join("\n");
  expect(listImports(text)).toEqual(["one", "./two.ts", "./three.ts", "./four.ts", "./five.ts", "./six.ts"]);
});
