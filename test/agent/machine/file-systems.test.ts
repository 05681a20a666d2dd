/** What `sync` is asked for, and what becomes of a `sync` that does not do it. */
import { expect, test } from "bun:test";
import { STORE_PLACES, syncFileSystems } from "../../../src/agent/machine/file-systems.ts";
import type { ProgramExit, RunProgramOptions } from "../../../src/agent/machine/process.ts";
import { runProgram } from "../../../src/agent/machine/process.ts";
import { systemClock } from "../../../src/runtime.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";

async function sync(places: readonly string[], exit: ProgramExit = { kind: "exited", code: 0 }, output: string[] = []) {
  const asked: RunProgramOptions[] = [];
  const run = async (options: RunProgramOptions) => {
    asked.push(options);
    for (const line of output) await options.onLine("err", line);
    return exit;
  };
  await syncFileSystems({ places, run, environment: { PATH: "/bin" }, clock: createVirtualClock() });
  return asked;
}

test("the file systems of the places that exist are synced by one call", async () => {
  await using directory = await createTemporaryDirectory("sync");
  const [call, ...more] = await sync([directory.path, directory.join("missing"), "/"]);
  expect(more).toEqual([]);
  const args = process.platform === "linux" ? ["-f", directory.path, "/"] : [];
  expect(call).toMatchObject({ command: "sync", args, environment: { PATH: "/bin" } });
});

test("without any place nothing is called", async () => {
  await using directory = await createTemporaryDirectory("sync");
  expect(await sync([directory.join("missing")])).toEqual([]);
});

const failures: readonly (readonly [exit: ProgramExit, output: string[], message: string])[] = [
  [
    { kind: "exited", code: 1 },
    ["sync: error syncing '/': Input/output error", "more"],
    "sync ended with code 1: sync: error syncing '/': Input/output error",
  ],
  [{ kind: "exited", code: 1 }, [], "sync ended with code 1"],
  [{ kind: "killed", signal: "SIGKILL" }, [], "sync was ended by SIGKILL"],
  [{ kind: "timed-out", afterMs: 600_000 }, [], "sync did not end within 600 s and was stopped"],
  [{ kind: "not-started", reason: "ENOENT" }, [], "sync could not be started (ENOENT)"],
];
for (const [exit, output, message] of failures) {
  test(`${exit.kind}${output.length > 0 ? " with a word" : ""} is an error that says so`, async () => {
    const error = await sync(["/"], exit, output).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      kind: "host",
      message: `cannot write to the disk what was written to /: ${message}`,
    });
  });
}

test("the real program does it", async () => {
  await using directory = await createTemporaryDirectory("sync");
  const environment = { PATH: process.env["PATH"] ?? "/usr/bin:/bin" };
  const places = [directory.path, ...STORE_PLACES];
  expect(await syncFileSystems({ places, run: runProgram, environment, clock: systemClock })).toBeUndefined();
});
