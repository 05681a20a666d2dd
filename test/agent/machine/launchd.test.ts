/** What launchd is asked, and what is made of its answers; no Mac is needed, because `run` is the test's. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { createBootClock } from "../../../src/agent/machine/boot-clock.ts";
import { createLaunchd, parseProcessId } from "../../../src/agent/machine/launchd.ts";
import type { RunProgram } from "../../../src/agent/machine/process.ts";
import { parseAgentName } from "../../../src/names.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";
import { exited } from "../activation/model-machine.ts";

const LABEL = "org.nixos.nixdeploy-agent-nuc";
/** The beginning of what macOS 14 prints, as its manual and public logs have it. */
const PRINTED = `system/${LABEL} = {
	active count = 1
	path = /Library/LaunchDaemons/${LABEL}.plist
	type = LaunchDaemon
	state = running

	program = /nix/store/00000000000000000000000000000000-nixdeploy/bin/nixdeploy
	pid = 4242
	immediate reason = speculative
	forks = 3
	ppid = 17
}`;

type Answer = { readonly code: number; readonly output?: string };

/** @param answers by the arguments' beginning; what has none fails as launchctl does for what it cannot find */
function createSubject(answers: Readonly<Record<string, Answer>>, options: { userId?: number; label?: string } = {}) {
  const asked: string[] = [];
  const run: RunProgram = async ({ command, args, onLine }) => {
    const line = args.join(" ");
    asked.push(line);
    expect(command).toBe("/bin/launchctl");
    const [, answer] = Object.entries(answers).find(([start]) => line.startsWith(start)) ?? [];
    for (const text of (answer?.output ?? "").split("\n")) await onLine("out", text);
    return exited(answer?.code ?? 113);
  };
  const services = createLaunchd({
    ...{ agentName: parseAgentName("nuc"), run, clock: createVirtualClock(), processId: 4242 },
    userId: options.userId ?? null,
    environment: { HOME: "/Users/ada", ...(options.label === undefined ? {} : { XPC_SERVICE_NAME: options.label }) },
  });
  return { services, asked };
}

test("the process of a job is the one that it prints", () => {
  expect(parseProcessId(PRINTED.split("\n"))).toBe(4242);
  expect(parseProcessId(["\tstate = not running", "\tppid = 17"])).toBeNull();
});

describe("the agent's unit", () => {
  const printed = { code: 0, output: PRINTED };
  const cases = [
    ["is the job whose main process it is", { "print system/own": printed }, { label: "own" }, "darwin", "own"],
    [
      "is the one of our module for another job's child",
      { "print system/own": { code: 0 } },
      { label: "own" },
      "darwin",
      LABEL,
    ],
    ["is the one of our module for an agent started by hand", {}, { label: "0" }, "darwin", LABEL],
    ["is none of a daemon's in a home", {}, {}, "home-manager", null],
    [
      "is the person's own job in a home",
      { "print gui/501/own": printed },
      { label: "own", userId: 501 },
      "home-manager",
      "own",
    ],
    ["is none in a home for an agent started by hand", {}, { userId: 501 }, "home-manager", null],
    ["is none in a plain profile", { "print system/own": printed }, { label: "own" }, "plain", null],
  ] as const;
  for (const [what, answers, options, type, expected] of cases) {
    test(what, async () => {
      expect(await createSubject(answers, options).services.agentUnit(type)).toBe(expected);
    });
  }
});

describe("a unit of a version", () => {
  let directory: TemporaryDirectory;
  beforeEach(async () => {
    directory = await createTemporaryDirectory("launchd");
  });
  afterEach(() => directory[Symbol.asyncDispose]());

  test("is a job of its LaunchDaemons", async () => {
    const { services } = createSubject({});
    expect(await services.hasUnit(directory.path, LABEL)).toBe(false);
    await mkdir(directory.join("Library/LaunchDaemons"), { recursive: true });
    await writeFile(directory.join(`Library/LaunchDaemons/${LABEL}.plist`), "");
    expect(await services.hasUnit(directory.path, LABEL)).toBe(true);
    expect(await services.hasUnit(directory.path, "org.nixos.other")).toBe(false);
  });
});

describe("a restart", () => {
  test("kills the job and starts it again", async () => {
    const { services, asked } = createSubject({ "kickstart -k": { code: 0 } });
    await services.restartUnit(LABEL);
    expect(asked).toEqual([`kickstart -k system/${LABEL}`]);
  });

  test("loads a job that is not there", async () => {
    const { services, asked } = createSubject(
      { bootstrap: { code: 0 }, [`kickstart gui`]: { code: 0 } },
      { userId: 501 },
    );
    await services.restartUnit("own");
    expect(asked).toEqual([
      "kickstart -k gui/501/own",
      "bootstrap gui/501 /Users/ada/Library/LaunchAgents/own.plist",
      "kickstart gui/501/own",
    ]);
  });

  test("that fails says what launchctl said", async () => {
    const { services } = createSubject({ bootstrap: { code: 5, output: "Bootstrap failed: 5: Input/output error" } });
    await expect(services.restartUnit(LABEL)).rejects.toThrow(
      /cannot start org\.nixos.*bootstrap ended with code 5 Bootstrap failed: 5: Input\/output error/,
    );
  });
});

test("nothing is told of failed jobs, and no unit is started", async () => {
  const { services, asked } = createSubject({});
  expect(await services.readFailedUnits()).toBeNull();
  expect(await services.mayStartUnits()).toBe(false);
  expect(asked).toEqual([]);
});

describe("which boot this is", () => {
  const UUID = "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9";
  const bootOf = (run: RunProgram) =>
    createBootClock({ os: "darwin", run, clock: createVirtualClock(), uptimeMs: () => 90_000 });

  test("is what the kernel of macOS says, asked once", async () => {
    let asked = 0;
    const clock = bootOf(async ({ command, args, onLine }) => {
      asked += 1;
      expect([command, ...args]).toEqual(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]);
      await onLine("out", UUID);
      return exited(0);
    });
    expect(await clock.read()).toEqual({ bootId: UUID, uptimeMs: 90_000 });
    expect((await clock.read()).bootId).toBe(UUID);
    expect(asked).toBe(1);
  });

  test("is told by its moment where the kernel does not say", async () => {
    const { bootId } = await bootOf(async () => exited(1)).read();
    expect(bootId).toMatch(/^since -?\d+$/);
  });
});
