/** Our line in a netrc file, and what curl would take of the others. */
import { describe, expect, test } from "bun:test";
import { findNetrcEntry, netrcHost, withNetrcEntry, withoutNetrcEntry } from "../../../src/client/nix-files/netrc.ts";

const HOST = "deploy.example.org";
const ours = (password = "nd_read_x", host = HOST) => `machine ${host} login nixdeploy password ${password}\n`;
const put = (text: string, password = "nd_read_x") => withNetrcEntry(text, { host: HOST, password });

test.each([
  ["https://deploy.example.org:8470/cache/a", HOST],
  ["http://127.0.0.1:1/cache/a", "127.0.0.1"],
  ["http://[::1]:1/cache/a", "::1"],
])("the host of %s is %s", (url, host) => expect(netrcHost(url)).toBe(host));

describe("our line", () => {
  test.each(["", "machine other login a password b\n", "# a comment\n\n"])("behind %j, and away again", (text) => {
    expect(put(text)).toBe(`${text}${ours()}`);
    expect(put(put(text))).toBe(put(text));
    expect(put(put(text), "nd_read_y")).toBe(`${text}${ours("nd_read_y")}`);
    expect(withoutNetrcEntry(put(text), HOST)).toBe(text);
  });

  test.each(["default login a password b\n", "macdef m\nmachine x\n\n"])(
    "before %j, behind which it would not count",
    (text) => {
      expect(put(text)).toBe(`${ours()}${text}`);
      expect(findNetrcEntry(put(text), HOST)).toEqual({ password: "nd_read_x", isOurs: true });
      expect(withoutNetrcEntry(put(text), HOST)).toBe(text);
    },
  );

  test.each(["default login a password b\n", "macdef m\nmachine x\n\n", `machine ${HOST} login me password p\n`])(
    "that somebody has put behind %j is put where it counts, if it may",
    (before) => {
      const isOthers = before.includes(HOST);
      const text = `${before}${ours("old")}`;
      expect(findNetrcEntry(put(text), HOST)?.password).toBe(isOthers ? "p" : "nd_read_x");
      expect(withoutNetrcEntry(put(text), HOST)).toBe(before);
    },
  );

  test("a line that lacks its end stays one", () => {
    expect(put("machine other login a password b")).toBe(`machine other login a password b\n${ours()}`);
  });

  test("another host's stays", () => {
    const text = `${ours("z", "other.example")}machine ${HOST} login me password secret\n`;
    expect(withoutNetrcEntry(text, HOST)).toBe(text);
  });
});

test.each([
  ["", null],
  [ours(), { password: "nd_read_x", isOurs: true }],
  [ours().toUpperCase(), null],
  [
    `machine ${HOST}\n  login me\n  password secret\nmachine x login y password z\n`,
    { password: "secret", isOurs: false },
  ],
  [`machine ${HOST} password secret login me`, { password: "secret", isOurs: false }],
  [`machine ${HOST} login me\n${ours()}`, { password: null, isOurs: false }],
  [`machine other login x password y\n${ours()}`, { password: "nd_read_x", isOurs: true }],
  [`default login x password y\n${ours()}`, null],
  [`# machine ${HOST} login x password y\n`, null],
  [`machine ${HOST.toUpperCase()} login nixdeploy password p\n`, { password: "p", isOurs: true }],
])("what counts for the host in %j", (text, entry) => expect(findNetrcEntry(text, HOST)).toEqual(entry));
