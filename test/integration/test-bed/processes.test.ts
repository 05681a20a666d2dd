/** The test bed's processes, and how it waits. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { runProcess, spawnProcess } from "../../support/processes.ts";
import { waitFor } from "../../support/wait-for.ts";

setDefaultTimeout(30_000);

describe("processes and waiting", () => {
  test("captures both streams by line and closes standard input", async () => {
    await using child = spawnProcess(["/bin/sh", "-c", "cat; echo out; echo err >&2; printf last"]);
    expect(await child.exited).toEqual({ exitCode: 0, signal: null });
    expect(child.lines.filter((line) => line.stream === "stdout").map((line) => line.text)).toEqual(["out", "last"]);
    expect(child.lines.filter((line) => line.stream === "stderr").map((line) => line.text)).toEqual(["err"]);
    expect((await child.waitForLine(/^o(.*)/))[1]).toBe("ut");
  });

  test("says what was printed when a line does not come", async () => {
    await using child = spawnProcess(["/bin/sh", "-c", "echo something else; exit 3"]);
    await expect(child.waitForLine(/ready/)).rejects.toThrow(
      /ended without a line that matches \/ready\/.*something else/s,
    );
    expect((await child.exited).exitCode).toBe(3);
  });

  test("tells a signal from an exit code", async () => {
    const child = spawnProcess(["sleep", "60"]);
    child.kill("SIGKILL");
    expect(await child.exited).toEqual({ exitCode: null, signal: "SIGKILL" });
  });

  test("does not wait for a grandchild that holds the output", async () => {
    const result = await runProcess(["/bin/sh", "-c", "sleep 20 & echo $!"]);
    process.kill(Number(result.stdout), "SIGKILL");
    expect(result.exitCode).toBe(0);
  });

  test("inherits no variable but the few of the base", async () => {
    const result = await runProcess(["env"], { env: { GIVEN: "1" } });
    expect(result.stdout.match(/^\w+(?==)/gm)?.sort()).toEqual(["GIVEN", "HOME", "LANG", "PATH", "TMPDIR"]);
  });

  test("kills what takes too long, and shows its output", async () => {
    const run = runProcess(["/bin/sh", "-c", "echo started; exec sleep 60"], { timeoutMs: 200 });
    await expect(run).rejects.toThrow(/not done after 200 ms.*started/s);
  });

  test("waitFor names what it waited for and what it saw last", async () => {
    expect(await waitFor("three", () => 3, { until: (value) => value === 3 })).toBe(3);
    const waiting = waitFor("agent online", () => "offline", { until: (value) => value === "online", timeoutMs: 50 });
    await expect(waiting).rejects.toThrow("waited 50 ms for agent online: last seen offline");
  });
});
