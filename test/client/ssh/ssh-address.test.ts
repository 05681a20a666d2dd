import { expect, test } from "bun:test";
import { formatSshAddress, parseSshAddress, sshDestination } from "../../../src/client/ssh/ssh-address.ts";

const GOOD = [
  ["nuc", { user: null, host: "nuc", port: null }, "nuc"],
  ["ssh://nuc", { user: null, host: "nuc", port: null }, "nuc"],
  [
    "ssh://root@nuc.example.org:2222/",
    { user: "root", host: "nuc.example.org", port: 2222 },
    "root@nuc.example.org:2222",
  ],
  ["root@10.0.0.1", { user: "root", host: "10.0.0.1", port: null }, "root@10.0.0.1"],
  ["ssh://me@[fe80::1%eth0]:22", { user: "me", host: "fe80::1%eth0", port: 22 }, "me@[fe80::1%eth0]:22"],
  ["ssh-ng://nuc", { user: null, host: "nuc", port: null }, "nuc"],
] as const;

test.each(GOOD)("%s", (text, address, formatted) => {
  expect(parseSshAddress(text)).toEqual(address);
  expect(formatSshAddress(parseSshAddress(text))).toBe(formatted);
});

test.each([
  "",
  "ssh://",
  "-oProxyCommand=id",
  "ssh://-oProxyCommand=id",
  "ssh://-l@nuc",
  "root@",
  "ssh://root:secret@nuc",
  "nuc:0",
  "nuc:65536",
  "nuc:22:22",
  "ssh://nuc/path",
  "https://nuc",
  "nuc;id",
  "nuc $(id)",
  "nuc\nid",
  "[::1",
  "[nuc]",
  `n${"u".repeat(300)}`,
])("no address: %j", (text) => {
  expect(() => parseSshAddress(text)).toThrow(Error);
});

test("what ssh is given ends with the host, behind the end of the options", () => {
  expect(sshDestination(parseSshAddress("ssh://root@nuc:2222"))).toEqual(["-p", "2222", "-l", "root", "--", "nuc"]);
});
