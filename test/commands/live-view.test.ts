/** `activate` on a real pseudo-terminal, seen by a virtual screen: what a person sees, not which bytes come. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { createVirtualScreen, type VirtualScreen } from "../support/virtual-screen.ts";
import { waitFor } from "../support/wait-for.ts";

const START = join(import.meta.dir, "../../src/start.ts");
const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;

type Terminal = AsyncDisposable & {
  readonly screen: VirtualScreen;
  readonly exitCode: Promise<number>;
  type(keys: string): void;
  resize(columns: number, rows: number): void;
  /** Until what is seen has settled so. */
  see(what: string, test: (visible: readonly string[]) => boolean): Promise<readonly string[]>;
};

function openTerminal(
  fake: FakeCoordinator,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Terminal {
  const size = { columns: 90, rows: 12 };
  const screen = createVirtualScreen(size);
  const decoder = new TextDecoder();
  const child = Bun.spawn([process.execPath, START, "activate", ...words], {
    env: {
      ...{ PATH: process.env["PATH"] ?? "", TERM: "xterm-256color", NIXDEPLOY_URL: fake.url },
      ...{ NIXDEPLOY_ACTIVATE_TOKEN: FAKE_TOKEN, ...env },
    },
    terminal: {
      ...{ cols: size.columns, rows: size.rows },
      data: (_terminal, bytes) => screen.write(decoder.decode(bytes, { stream: true })),
    },
  });
  return {
    screen,
    exitCode: child.exited,
    type: (keys) => void child.terminal?.write(keys),
    resize(columns, rows) {
      screen.resize({ columns, rows });
      child.terminal?.resize(columns, rows);
    },
    async see(what, isSeen) {
      await waitFor(what, () => isSeen(screen.visible()), { timeoutMs: 30_000 }).catch((cause) => {
        throw new Error(`not seen: ${what}; but\n${screen.visible().join("\n")}`, { cause });
      });
      return screen.visible();
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      child.terminal?.close();
    },
  };
}

function startFleet(...agents: readonly string[]): FakeCoordinator {
  const fake = startFakeCoordinator();
  for (const agent of agents) fake.addAgent(agent);
  return fake;
}
const pairs = (...agents: readonly string[]) => agents.map((agent) => `${agent}=${SYSTEM}`);
const has = (text: string) => (visible: readonly string[]) => visible.some((line) => line.includes(text));
const COLORS = ["31", "32", "33"];

describe("on a terminal", () => {
  test("each agent has a line that changes in place; what failed leaves its log; the table is what stays", async () => {
    await using fake = startFleet("nuc", "tv", "pi");
    await using terminal = openTerminal(fake, pairs("nuc", "tv", "pi"));
    await terminal.see("all three", has("3 agents: 3 queued"));
    fake.setDeployment("nuc", { state: "fetching" });
    fake.sendProgress("nuc", { paths: 1, pathsTotal: 4, bytes: 50_000_000, bytesTotal: 100_000_000 });
    fake.setDeployment("tv", { state: "activating" });
    fake.appendLog("tv", "starting units");
    const seen = await terminal.see("both at work", (all) => has("50 %")(all) && has("starting units")(all));
    expect(seen.slice(-4)).toEqual([
      expect.stringMatching(/^nuc {2}fetching {5}█████░░░░░ {2}50 % {2}50\.0 MB of 100\.0 MB.* \(1 of 4 paths\)$/),
      expect.stringMatching(/^tv {3}activating {3}.* {2}starting units$/),
      "pi   queued",
      expect.stringMatching(/^3 agents: 1 queued, 1 fetching, 1 activating/),
    ]);
    fake.setDeployment("tv", { state: "rolled-back", reason: "no proof in time" });
    const failed = await terminal.see("the failure", has("tv: rolled back: no proof in time"));
    const at = failed.indexOf("tv: rolled back: no proof in time");
    expect(failed[at - 1]).toBe("tv | starting units");
    for (const agent of ["nuc", "pi"]) fake.setDeployment(agent, { state: "succeeded" });
    expect(await terminal.exitCode).toBe(1);
    await terminal.see("the hint of the end", has("nixdeploy: cannot deploy to 1 of 3 agents"));
    const all = terminal.screen.everything();
    expect(all.filter((line) => line.startsWith("AGENT"))).toHaveLength(1);
    // Nothing of the changing lines is left anywhere.
    expect(all.filter((line) => /█|░|^3 agents/.test(line))).toEqual([]);
    expect(all.filter((line) => line === "tv | starting units")).toHaveLength(1);
    expect(COLORS.filter((color) => terminal.screen.colors.has(color))).toContain("31");
  });

  test("many agents fit into a low window, and into one that gets lower", async () => {
    const names = Array.from({ length: 40 }, (_, index) => `agent-${index}`);
    await using fake = startFleet(...names);
    await using terminal = openTerminal(fake, pairs(...names));
    await terminal.see("counts", has("40 agents: 40 queued"));
    for (const name of names.slice(0, 30)) fake.setDeployment(name, { state: "activating" });
    for (const name of names.slice(0, 30)) fake.appendLog(name, "a long line of a log ".repeat(10));
    const seen = await terminal.see(
      "as many as fit",
      (all) =>
        has("40 agents: 10 queued, 30 activating")(all) && all.filter((line) => line.includes("a long")).length === 9,
    );
    expect(seen.at(-1)).toStartWith("40 agents");
    terminal.resize(90, 8);
    fake.setDeployment("agent-0", { state: "succeeded" });
    await terminal.see("a lower one", (all) => all.filter((line) => line.includes("a long")).length === 5);
    for (const name of names) fake.setDeployment(name, { state: "succeeded" });
    expect(await terminal.exitCode).toBe(0);
    await terminal.see("the table", (all) => all.length > 0 && !has("40 agents")(all));
    expect(terminal.screen.visible().filter((line) => line.includes("a long"))).toEqual([]);
  });

  test("a window that gets narrower leaves nothing of what was painted wider", async () => {
    await using fake = startFleet("nuc", "tv");
    await using terminal = openTerminal(fake, pairs("nuc", "tv"));
    await waitFor("it to follow", () => fake.followers > 0, { timeoutMs: 30_000 });
    for (const name of ["nuc", "tv"]) {
      fake.setDeployment(name, { state: "activating" });
      fake.appendLog(name, "a long line of a log ".repeat(10));
    }
    await terminal.see("both", (all) => all.filter((line) => line.includes("a long")).length === 2);
    terminal.resize(50, 12);
    fake.setDeployment("nuc", { state: "confirming" });
    const seen = await terminal.see(
      "nuc confirming",
      (all) => has("nuc  confirming")(all) && !has("nuc  activating")(all),
    );
    expect(seen.filter((line) => /^(nuc|tv) {2,}|^2 agents/.test(line))).toEqual([
      expect.stringMatching(/^nuc {2}confirming/),
      expect.stringMatching(/^tv {3}activating {3}\d+ .* a long line of a l.*…$/),
      expect.stringMatching(/^2 agents: 1 activating, 1 confirming$/),
    ]);
    expect(terminal.screen.everything().filter((line) => line.includes("a long"))).toHaveLength(1);
    for (const name of ["nuc", "tv"]) fake.setDeployment(name, { state: "succeeded" });
    expect(await terminal.exitCode).toBe(0);
  });

  test("Ctrl-C detaches, says how to follow or cancel, and cancels nothing", async () => {
    await using fake = startFleet("nuc");
    await using terminal = openTerminal(fake, pairs("nuc"));
    await terminal.see("it runs", has("nuc  queued"));
    await waitFor("it to follow", () => fake.followers > 0);
    terminal.type("\u0003");
    expect(await terminal.exitCode).toBe(130);
    const id = fake.rollouts[0]?.id;
    const text = terminal.screen.everything().join("");
    expect(text).toContain("stopped following; 1 deployment goes on, nothing is cancelled");
    expect(text).toContain(`nixdeploy logs ${id} --follow, or cancel with: nixdeploy cancel ${id}`);
    expect(fake.deploymentOf("nuc").state).toBe("queued");
  });

  test("a coordinator that restarts is waited for; NO_COLOR is honored", async () => {
    await using fake = startFleet("nuc");
    await using terminal = openTerminal(fake, pairs("nuc"), { NO_COLOR: "1" });
    await waitFor("it to follow", () => fake.followers > 0, { timeoutMs: 30_000 });
    await fake.stop();
    await terminal.see("it is said", has("lost the connection to the coordinator"));
    fake.start();
    await waitFor("it to follow again", () => fake.followers > 0, { timeoutMs: 30_000 });
    fake.setDeployment("nuc", { state: "fetching" });
    await terminal.see("it is back", has("the coordinator is there again"));
    fake.setDeployment("nuc", { state: "succeeded" });
    expect(await terminal.exitCode).toBe(0);
    expect([...terminal.screen.colors]).toEqual([]);
  });

  test.each([
    ["a dumb one", [], { TERM: "dumb" }],
    ["one where JSON is wanted", ["--log-format", "json"], {}],
  ] as const)("%s gets lines", async (_what, flags, env) => {
    await using fake = startFleet("nuc");
    await using terminal = openTerminal(fake, [...flags, ...pairs("nuc")], env);
    await waitFor("it to follow", () => fake.followers > 0, { timeoutMs: 30_000 });
    fake.appendLog("nuc", "one");
    fake.setDeployment("nuc", { state: "succeeded" });
    expect(await terminal.exitCode).toBe(0);
    expect(terminal.screen.everything().join("\n")).toContain("nuc | one");
  });
});

test("the virtual screen wraps, moves, erases and scrolls as a terminal does", () => {
  const screen = createVirtualScreen({ columns: 4, rows: 3 });
  screen.write("abcdef\r\nx\r\n");
  expect(screen.visible()).toEqual(["ef", "x"]);
  screen.write("\u001b[1A\r\u001b[Jyz\r\n");
  expect(screen.everything()).toEqual(["abcd", "ef", "yz"]);
  screen.write("\u001b[9A\r\u001b[J");
  expect(screen.everything()).toEqual(["abcd"]);
  expect(() => screen.write("\u001b[2X")).toThrow("does not know");
});
