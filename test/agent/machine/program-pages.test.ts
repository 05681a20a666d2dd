/** What an agent gives back of its own program: nothing that was written, and it goes on as before. */
import { describe, expect, test } from "bun:test";
import { findUnwritten } from "../../../src/agent/machine/program-pages.ts";
import { runChecked } from "../../support/processes.ts";

const PROGRAM = "/usr/local/bin/nixdeploy";
const mapping = (header: string, anonymousKb: number) =>
  [header, "Size:  100 kB", "Rss:  80 kB", `Anonymous:             ${anonymousKb} kB`, "VmFlags: rd ex mr mw me"].join(
    "\n",
  );

describe("what can be dropped", () => {
  test.each<[string, string, number, boolean]>([
    ["code", `01a40000-0684a000 r-xp 01838000 fe:00 5703341                            ${PROGRAM}`, 0, true],
    ["constants", `00200000-01a39000 r--p 00000000 fe:00 5703341                            ${PROGRAM}`, 0, true],
    ["what the loader has relocated", `0684b000-06867000 r--p 06642000 fe:00 5703341       ${PROGRAM}`, 112, false],
    ["variables", `06867000-078f7000 rw-p 0665e000 fe:00 5703341                            ${PROGRAM}`, 0, false],
    ["code that may be written", `01a40000-0684a000 rwxp 01838000 fe:00 5703341              ${PROGRAM}`, 0, false],
    ["what is shared with others", `01a40000-0684a000 r--s 01838000 fe:00 5703341            ${PROGRAM}`, 0, false],
    ["a library", "7f64eaed9000-7f64eb02f000 r-xp 00026000 fe:00 1447         /usr/lib/libc.so.6", 0, false],
    ["no file", "7f64eaed9000-7f64eb02f000 r-xp 00000000 00:00 0 ", 0, false],
    [
      "a file of a like name",
      `01a40000-0684a000 r-xp 01838000 fe:00 57                       ${PROGRAM}-other`,
      0,
      false,
    ],
  ])("%s", (_, header, anonymousKb, isDropped) => {
    expect(findUnwritten(mapping(header, anonymousKb), PROGRAM)).toHaveLength(isDropped ? 1 : 0);
  });

  test("addresses of any height, each mapping by its own", () => {
    const smaps = [
      mapping(`5581a0000000-5581a0003000 r-xp 01838000 fe:00 57 ${PROGRAM} (deleted)`, 0),
      mapping(`5581a0003000-5581a0004000 r--p 01838000 fe:00 57 ${PROGRAM} (deleted)`, 4),
      mapping(`5581a0004000-5581a0005000 r--p 01838000 fe:00 57 ${PROGRAM} (deleted)`, 0),
    ].join("\n");
    expect(findUnwritten(smaps, `${PROGRAM} (deleted)`)).toEqual([
      { start: 0x5581a0000000, lengthBytes: 0x3000 },
      { start: 0x5581a0004000, lengthBytes: 0x1000 },
    ]);
    expect(findUnwritten("", PROGRAM)).toEqual([]);
  });
});

test("a program that gives them back is smaller, and goes on", async () => {
  const source = `
    import { readFileSync } from "node:fs";
    import { releaseProgramPages } from ${JSON.stringify(new URL("../../../src/agent/machine/program-pages.ts", import.meta.url).pathname)};
    const read = () => Number(/^Rss: +(\\d+)/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]);
    read();
    const before = read();
    releaseProgramPages();
    const after = read();
    // Code of every kind runs again: parser, collector, network, compression.
    const text = "x".repeat(1_000_000);
    if (Bun.gunzipSync(Bun.gzipSync(text)).length !== text.length) throw new Error("it does not compress any more");
    using server = Bun.serve({ port: 0, fetch: () => new Response("here") });
    Bun.gc(true);
    console.log(JSON.stringify({ before, after, answer: await (await fetch(server.url)).text() }));`;
  const { before, after, answer } = JSON.parse(await runChecked([process.execPath, "-e", source]));
  expect(answer).toBe("here");
  expect(after).toBeLessThan(before * 0.8);
}, 30_000);
