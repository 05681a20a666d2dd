/** What a user sees of the process: streams, exit codes, signals. Runs the program with sample commands. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const PROGRAM = [process.execPath, join(import.meta.dir, "../fixtures/commands/sample-main.ts")];

async function run(args: readonly string[]) {
  const child = Bun.spawn([...PROGRAM, ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, exitCode };
}

/** Starts `wait`, and sends each signal when it has said one more line: that it runs, that it was told. */
async function runAndSignal(args: readonly string[], signals: readonly NodeJS.Signals[]) {
  const child = Bun.spawn([...PROGRAM, "wait", ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const stderr = child.stderr.text();
  const reader = child.stdout.getReader();
  for (const signal of signals) {
    await reader.read();
    child.kill(signal);
  }
  await child.exited;
  await reader.cancel();
  return { exitCode: child.exitCode, stderr: await stderr };
}

test("a result goes to stdout and nothing else does", async () => {
  expect(await run(["echo", "one", "two"])).toEqual({ stdout: "one two\n", stderr: "", exitCode: 0 });
});

test("--json prints one document with typed values", async () => {
  const { stdout } = await run(["--json", "echo", "--agent", "a", "--agent=b", "--timeout", "1h30m", "--", "--x"]);
  expect(JSON.parse(stdout)).toMatchObject({ agent: ["a", "b"], timeoutMs: 5_400_000, words: ["--x"] });
});

test("--version works everywhere", async () => {
  for (const args of [["--version"], ["echo", "--version"], ["group", "echo", "--version", "--nonsense"]]) {
    expect(await run(args)).toMatchObject({
      stdout: expect.stringMatching(/^nixdeploy \d+\.\d+\.\d+\n$/),
      exitCode: 0,
    });
  }
});

test("no command: the help on stderr, exit code 2", async () => {
  const { stdout, stderr, exitCode } = await run([]);
  expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
  expect(stderr).toContain("Usage: nixdeploy COMMAND");
  expect(stderr).toEndWith("nixdeploy: cannot run `nixdeploy`: no command is given\n");
});

test("a group alone: its help on stderr, exit code 2", async () => {
  const { stdout, stderr, exitCode } = await run(["group"]);
  expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
  expect(stderr).toContain("group echo");
});

test("a mistake in the arguments: message and hint on stderr, exit code 2", async () => {
  expect(await run(["echo", "--agnet", "x"])).toEqual({
    stdout: "",
    stderr:
      "nixdeploy: cannot run `nixdeploy echo`: there is no flag --agnet\n" +
      "hint: Did you mean --agent? See `nixdeploy echo --help`.\n",
    exitCode: 2,
  });
});

for (const [kind, exitCode] of [
  ["denied", 77],
  ["unreachable", 75],
  ["refused", 1],
] as const) {
  test(`an error of kind ${kind} ends with ${exitCode}`, async () => {
    expect(await run(["fail", "--kind", kind])).toEqual({
      stdout: "",
      stderr: "nixdeploy: cannot do it: it is a test\n  - first fault\n  - second fault\nhint: Do something else.\n",
      exitCode,
    });
  });
}

test("--verbose shows the causes", async () => {
  const { stderr } = await run(["fail", "--kind", "refused", "--verbose"]);
  expect(stderr).toEndWith("hint: Do something else.\ncause: Error: the reason below\n");
});

test("--log-format json makes the error a JSON line", async () => {
  const { stderr, exitCode } = await run(["fail", "--kind", "refused", "--log-format", "json"]);
  expect(exitCode).toBe(1);
  expect(JSON.parse(stderr)).toMatchObject({
    level: "error",
    message: "cannot do it: it is a test",
    hint: "Do something else.",
    details: ["first fault", "second fault"],
  });
});

test("a bug shows its stack and asks for a report", async () => {
  const { stderr, exitCode } = await run(["fail", "--kind", "bug"]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain("this is a bug in nixdeploy\nTypeError: undefined is not a function\n    at ");
  expect(stderr).toContain("Please report it");
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`${signal} interrupts a command`, async () => {
    expect(await runAndSignal([], [signal])).toEqual({ exitCode: 130, stderr: "nixdeploy: interrupted\n" });
  });

  test(`${signal} ends a command that ends by itself with 0`, async () => {
    expect(await runAndSignal(["--graceful"], [signal])).toEqual({ exitCode: 0, stderr: "" });
  });

  test(`a second ${signal} leaves at once`, async () => {
    expect(await runAndSignal(["--deaf"], [signal, signal])).toEqual({ exitCode: 130, stderr: "" });
  });
}

test("a reader that goes away stops the command without a word", async () => {
  const child = Bun.spawn([...PROGRAM, "flood"], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel();
  expect(await child.exited).toBe(1);
  expect(await child.stderr.text()).toBe("");
});
