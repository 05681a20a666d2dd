/** Our lines in nix.conf: put, put again, moved, taken away, and nothing else of the file ever changes. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type CacheBlock,
  findCacheBlocks,
  findIncludes,
  findNetrcFile,
  formatNixModule,
  withCacheBlock,
  withoutCacheBlock,
} from "../../../src/client/nix-files/nix-conf.ts";

const KEY = "default-x7k2p1-1:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";
const URL_OF = "https://deploy.example.org/cache";
const blockOf = (name = "default", changes: Partial<CacheBlock> = {}): CacheBlock => ({
  ...{ name, url: `${URL_OF}/${name}`, publicKeys: [KEY], netrcFile: null },
  ...changes,
});
const LINES = `# nixdeploy cache default at ${URL_OF}/default: begin
extra-substituters = ${URL_OF}/default
extra-trusted-public-keys = ${KEY}
# nixdeploy cache default at ${URL_OF}/default: end
`;

test("into no file, and with the place of the tokens", () => {
  expect(withCacheBlock("", blockOf())).toBe(LINES);
  const named = withCacheBlock("", blockOf("default", { netrcFile: "/home/ann/.config/nix/netrc" }));
  expect(named).toContain("\nnetrc-file = /home/ann/.config/nix/netrc\n# nixdeploy cache default");
});

test.each(["sandbox = true\n", "sandbox = true", "# only a comment\n\n\n", "a = b\r\n"])(
  "behind %j, and away again",
  (text) => {
    const put = withCacheBlock(text, blockOf());
    expect(put).toBe(`${text.replace(/(?<!\n)$/, "\n")}\n${LINES}`);
    expect(withCacheBlock(put, blockOf())).toBe(put);
    expect(withoutCacheBlock(put, blockOf())).toBe(text.endsWith("\n") ? text : `${text}\n`);
  },
);

test("another key takes the place of the one before, where it stands", () => {
  const before = `${withCacheBlock("a = b\n", blockOf())}c = d\n`;
  const after = withCacheBlock(before, blockOf("default", { publicKeys: ["new-2:x", "new-1:y"] }));
  expect(after).toBe(before.replace(KEY, "new-2:x new-1:y"));
});

describe("what stands behind", () => {
  test.each([
    "substituters = https://cache.nixos.org",
    "trusted-public-keys = a:b",
    "netrc-file = /x",
    "  substituters=",
    "include more.conf",
    "!include /etc/nix/more.conf",
  ])("%j would take its effect away, so the block moves to the end", (line) => {
    const before = `${withCacheBlock("a = b\n", blockOf())}${line}\n`;
    expect(withCacheBlock(before, blockOf())).toBe(`a = b\n${line}\n\n${LINES}`);
  });

  test.each(["extra-substituters = https://x", "# substituters = x", "max-jobs = 4"])("%j does not", (line) => {
    const before = `${withCacheBlock("a = b\n", blockOf())}${line}\n`;
    expect(withCacheBlock(before, blockOf())).toBe(before);
  });

  test("nor do lines of another cache of ours", () => {
    const both = withCacheBlock(
      withCacheBlock("", blockOf("a", { netrcFile: "/n" })),
      blockOf("b", { netrcFile: "/n" }),
    );
    expect(withCacheBlock(both, blockOf("a", { netrcFile: "/n" }))).toBe(both);
    expect(findCacheBlocks(both).map(({ name }) => name)).toEqual(["a", "b"]);
    expect(withoutCacheBlock(both, blockOf("a"))).toBe(`\n${withCacheBlock("", blockOf("b", { netrcFile: "/n" }))}`);
  });
});

test("the files that it includes", () => {
  const text = "include a.conf\n  !include /b.conf # why\n# include c\nincluded = x\nx = include d\n!include\te.conf\n";
  expect(findIncludes(text)).toEqual(["a.conf", "/b.conf", "e.conf"]);
});

test("a block that lost its end is not guessed at", () => {
  const broken = LINES.split("\n").slice(0, 2).join("\n");
  expect(() => withCacheBlock(broken, blockOf())).toThrow(/the lines of the cache default have no end/);
});

test.each([
  ["https://x/cache/a\npost-build-hook = /evil", KEY],
  ["https://x/cache/a # comment", KEY],
  ["https://x/$" + "{builtins.exec}", KEY],
  ['https://x/"', KEY],
  ["https://x/cache/a", "key:AA==\nsandbox = false"],
  ["", KEY],
])("what would say more than itself is not written: %j, %j", (url, key) => {
  const block = blockOf("a", { url, publicKeys: [key] });
  expect(() => withCacheBlock("", block)).toThrow(/it is not one plain word/);
  expect(() => formatNixModule(block)).toThrow(/it is not one plain word/);
});

test.each([
  ["", null],
  ["netrc-file = /a\nnetrc-file = /b # why\n", "/b"],
  ["#netrc-file = /a\n", null],
  [withCacheBlock("netrc-file = /mine\n", blockOf("default", { netrcFile: "/ours" })), "/mine"],
])("the netrc file that %j names is %p", (text, path) => expect(findNetrcFile(text)).toBe(path));

test("lines for a module", () => {
  expect(formatNixModule(blockOf())).toBe(
    `nix.settings = {\n  extra-substituters = [ "${URL_OF}/default" ];\n  extra-trusted-public-keys = [ "${KEY}" ];\n};`,
  );
});

test("whatever the file says, it comes out as it was", () => {
  const line = fc.constantFrom("a = b", "", "# c", "substituters = x", "extra-substituters = y", "  ", "!include z");
  fc.assert(
    fc.property(fc.array(line), (lines) => {
      const text = lines.map((each) => `${each}\n`).join("");
      const put = withCacheBlock(text, blockOf());
      expect(withoutCacheBlock(put, blockOf())).toBe(text);
      const both = withCacheBlock(put, blockOf("other"));
      expect(withoutCacheBlock(withoutCacheBlock(both, blockOf("other")), blockOf())).toBe(text);
    }),
  );
});
