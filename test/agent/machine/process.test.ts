/** Programs on this machine: every way to end, output in bounded memory, nothing left behind. */
import { describe, expect, test } from "bun:test";
import { createLineSplitter } from "../../../src/agent/machine/line-splitter.ts";
import { runProgram } from "../../../src/agent/machine/process.ts";
import { cleanEnvironment } from "../../../src/agent/machine/program-environment.ts";
import { systemClock } from "../../../src/runtime.ts";
import { waitFor } from "../../support/wait-for.ts";

async function run(script: string, deadlineMs = 10_000) {
  const lines: string[] = [];
  const exit = await runProgram({
    command: "/bin/sh",
    args: ["-c", script],
    environment: { PATH: "/usr/bin:/bin", GREETING: "hello" },
    deadlineMs,
    clock: systemClock,
    onLine: async (stream, text) => {
      lines.push(`${stream} ${text}`);
    },
  });
  return { exit, lines };
}

test("output comes by line and stream, the last line too, and the code is told", async () => {
  const { exit, lines } = await run("echo one; echo two >&2; printf three; exit 3");
  expect(exit).toEqual({ kind: "exited", code: 3 });
  expect(lines.toSorted()).toEqual(["err two", "out one", "out three"]);
});

test("standard input is closed, the directory is /, the environment is what was given", async () => {
  const { lines } = await run('read x || echo closed; pwd; echo "$GREETING $HOME"');
  expect(lines).toEqual(["out closed", "out /", "out hello "]);
});

test("a signal is told", async () => {
  expect((await run("kill -9 $$")).exit).toEqual({ kind: "killed", signal: "SIGKILL" });
});

test("a program that is not there is told", async () => {
  const exit = await runProgram({
    command: "/nonexistent/program",
    args: [],
    environment: {},
    deadlineMs: 1_000,
    clock: systemClock,
    onLine: async () => {},
  });
  expect(exit).toMatchObject({ kind: "not-started", reason: expect.stringContaining("no such file") });
});

test("at the deadline the program is stopped, with its children", async () => {
  const { exit, lines } = await run("sleep 1000 & echo $!; wait", 200);
  expect(exit).toEqual({ kind: "timed-out", afterMs: 200 });
  const pid = Number(lines[0]?.slice(4));
  await waitFor("the child's end", async () => !(await Bun.file(`/proc/${pid}/status`).exists()));
});

test("a daemon that the program leaves behind does not hold us", async () => {
  const { exit, lines } = await run("sleep 1000 & echo $!");
  process.kill(Number(lines[0]?.slice(4)), "SIGKILL");
  expect(exit).toEqual({ kind: "exited", code: 0 });
});

test("a program that prints without end waits for a slow reader, and memory stays flat", async () => {
  const before = process.memoryUsage().rss;
  let lines = 0;
  const exit = await runProgram({
    command: "/bin/sh",
    args: ["-c", "head -c 800000000 /dev/zero | tr '\\0' x"],
    environment: { PATH: "/usr/bin:/bin" },
    deadlineMs: 30_000,
    clock: systemClock,
    onLine: async (_stream, text) => {
      expect(text.length).toBeLessThanOrEqual(16 * 1024);
      lines += 1;
    },
  });
  expect(exit).toEqual({ kind: "exited", code: 0 });
  expect(lines).toBeGreaterThan(48_000);
  // Dead strings that the collector has not looked at yet; all of it would be 800 MB, or twice that as UTF-16.
  expect(process.memoryUsage().rss - before).toBeLessThan(400_000_000);
}, 60_000);

describe("lines", () => {
  const split = (chunks: readonly string[], lengthMax = 10) => {
    const splitter = createLineSplitter(lengthMax);
    const lines = chunks.flatMap((chunk) => splitter.push(new TextEncoder().encode(chunk)));
    return [...lines, ...splitter.end()];
  };
  for (const [chunks, lines] of [
    [["a\nb\n"], ["a", "b"]],
    [
      ["a", "b\r\n\nc"],
      ["ab", "", "c"],
    ],
    [["0123456789abc\nd"], ["0123456789", "abc", "d"]],
    [
      ["01234", "56789", "abc"],
      ["0123456789", "abc"],
    ],
    [[""], []],
  ] as const) {
    test(JSON.stringify(chunks), () => expect(split(chunks)).toEqual([...lines]));
  }

  test("characters that are split between chunks stay whole, wrong bytes do no harm", () => {
    const splitter = createLineSplitter(100);
    const bytes = new TextEncoder().encode("grün €\n");
    const lines = [...bytes].flatMap((byte) => splitter.push(Uint8Array.of(byte)));
    expect([...lines, ...splitter.push(Uint8Array.of(0xff, 0x0a))]).toEqual(["grün €", "\ufffd"]);
  });
});

test("the environment of programs has no secret of ours, and finds Nix", () => {
  const clean = cleanEnvironment({
    PATH: "/own/bin:/usr/bin",
    HOME: "/root",
    NIX_CONF_DIR: "/etc/nix-test",
    NIXDEPLOY_TOKEN: "secret",
    NIXDEPLOY_AGENT_TOKEN_FILE: "/secret",
    NIXDEPLOY_SIGNING_KEY: "secret",
    NIXDEPLOY_BOOTSTRAP: "1",
    CREDENTIALS_DIRECTORY: "/run/credentials/x",
    NOTIFY_SOCKET: "/run/notify",
    INVOCATION_ID: "1",
    NIXOS_INSTALL_BOOTLOADER: "1",
    BUN_OPTIONS: "--preload x",
  });
  expect(Object.keys(clean).toSorted()).toEqual(["HOME", "NIX_CONF_DIR", "PATH"]);
  expect(clean["PATH"]).toStartWith("/own/bin:/usr/bin:");
  expect(clean["PATH"]?.split(":")).toContain("/run/current-system/sw/bin");
});
