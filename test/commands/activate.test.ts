/** `activate` against a coordinator that does as the test says: what is printed where, and the exit codes. */
import { describe, expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { z } from "zod";
import { NixdeployError } from "../../src/errors.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, problem, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { type RunCommandOptions, type RunningCommand, startCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";
import { runWorkflowLog } from "../support/workflow-runner.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;

const eventSchema = z.object({ event: z.string(), data: z.unknown() });

function activate(fake: FakeCoordinator, words: readonly string[], options: RunCommandOptions = {}): RunningCommand {
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_ACTIVATE_TOKEN: FAKE_TOKEN, ...options.env };
  return startCommand(["activate", ...words], { ...options, env });
}

async function startFleet(...agents: readonly string[]): Promise<FakeCoordinator> {
  const fake = startFakeCoordinator();
  for (const agent of agents) fake.addAgent(agent);
  return fake;
}

const followed = (fake: FakeCoordinator) => waitFor("activate to follow", () => fake.followers > 0);

describe("a rollout", () => {
  test("is followed to its good end: lines on stderr, summary on stdout, 0", async () => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, [`nuc=${SYSTEM}`]);
    await followed(fake);
    fake.setDeployment("nuc", { state: "fetching" });
    fake.appendLog("nuc", "starting units");
    fake.setDeployment("nuc", { state: "succeeded" });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(0);
    expect(stdout.replace(/ +/g, " ")).toBe(
      `AGENT OUTCOME DURATION URL REASON\nnuc succeeded 12 s ${fake.deploymentOf("nuc").url}\n`,
    );
    const lines = [`nuc: queued ${SYSTEM}`, "nuc: fetching", "nuc | starting units", "nuc: succeeded"];
    expect(stderr.split("\n").slice(1, -1)).toEqual(lines);
  });

  test("has a key of its own; one that is given starts it once", async () => {
    await using fake = await startFleet("nuc");
    const words = ["--async", `nuc=${SYSTEM}`];
    for (let count = 0; count < 2; count += 1) expect((await activate(fake, words).result).exitCode).toBe(0);
    const first = await activate(fake, [...words, "--idempotency-key", "release-7"]).result;
    const second = await activate(fake, [...words, "--idempotency-key", "release-7"]).result;
    expect(fake.rollouts).toHaveLength(3);
    expect(second.stdout).toBe(first.stdout);
    expect(second.stderr).toContain("nothing is started again");
    const started = fake.requests.filter(({ path }) => path.endsWith("/rollouts"));
    const [a, b, c, d] = started.map(({ idempotencyKey }) => idempotencyKey);
    expect([a === b, c, d]).toEqual([false, "release-7", "release-7"]);
    expect(a).toMatch(/^once-/);
    expect((await activate(fake, [...words, "--idempotency-key", "a b"]).result).exitCode).toBe(2);
  });

  test("with --json the rollout is on stdout, with the states at the end", async () => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, ["--json", `nuc=${SYSTEM}`]);
    await followed(fake);
    fake.setDeployment("nuc", { state: "succeeded" });
    const { exitCode, stdout } = await command.result;
    expect(exitCode).toBe(0);
    const { deployments } = rolloutResultSchema.parse(JSON.parse(stdout));
    expect(deployments).toMatchObject([{ agent: "nuc", state: "succeeded", storePath: SYSTEM }]);
  });

  test("of dry activations shows what each would do, and has it in its JSON", async () => {
    const unitChanges = {
      ...{ stop: ["a.service", "b.service"], skip: ["c.service"], reload: [], restart: [], start: ["a.service"] },
      ...{ swapOff: [], restartsSystemd: true, omitted: 0 },
    };
    const nothing = { stop: [], skip: [], reload: [], restart: [], start: [] };
    for (const flags of [[], ["--json"]]) {
      await using fake = await startFleet("nuc", "tv");
      const command = activate(fake, [...flags, "--mode", "dry-activate", `nuc=${SYSTEM}`, `tv=${SYSTEM}`]);
      await followed(fake);
      fake.setDeployment("nuc", { state: "succeeded", unitChanges });
      fake.setDeployment("tv", {
        state: "succeeded",
        unitChanges: { ...nothing, swapOff: [], restartsSystemd: false, omitted: 0 },
      });
      const { exitCode, stdout } = await command.result;
      expect(exitCode).toBe(0);
      if (flags.length > 0) {
        expect(JSON.parse(stdout).deployments[0]).toMatchObject({ agent: "nuc", unitChanges });
        continue;
      }
      expect(stdout.replace(/ +/g, " ").split("\n\n")[1]?.trimEnd().split("\n")).toEqual([
        "AGENT WOULD UNITS",
        "nuc stop a.service, b.service",
        "nuc leave, though changed c.service",
        "nuc start a.service",
        "nuc restart systemd itself",
        "tv change no unit",
      ]);
    }
  });

  test("that fails for one agent ends with 1 and says for which and why", async () => {
    await using fake = await startFleet("nuc", "tv");
    const command = activate(fake, [`nuc=${SYSTEM}`, `tv=${SYSTEM}`]);
    await followed(fake);
    fake.setDeployment("nuc", { state: "succeeded" });
    fake.setDeployment("tv", { state: "rolled-back", reason: "no proof in time" });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(1);
    expect(stdout).toContain("no proof in time");
    expect(stderr).toContain("nixdeploy: cannot deploy to 1 of 2 agents\n  - tv: rolled back: no proof in time\n");
  });

  test("for an agent that is offline ends with 0 and says so", async () => {
    await using fake = await startFleet();
    fake.addAgent("away", "offline");
    const { exitCode, stdout, stderr } = await activate(fake, [`away=${SYSTEM}`]).result;
    expect(exitCode).toBe(0);
    expect(stderr).toContain("away is offline: it takes this deployment when it returns");
    expect(stdout).toContain("offline: takes it when it returns");
  });

  test("--async ends with 0 as soon as it is recorded", async () => {
    await using fake = await startFleet("nuc");
    const { exitCode, stdout, stderr } = await activate(fake, [`nuc=${SYSTEM}`, "--async"]).result;
    const [rollout] = fake.rollouts;
    expect([exitCode, stdout]).toEqual([0, `${rollout?.id}\n`]);
    expect(stderr).toContain(`nixdeploy logs ${rollout?.id} --follow`);
  });

  test("that outlasts --timeout ends with 75 and goes on", async () => {
    await using fake = await startFleet("nuc");
    const { exitCode, stdout, stderr } = await activate(fake, [`nuc=${SYSTEM}`, "--timeout", "1s"]).result;
    expect(exitCode).toBe(75);
    expect(stdout).toContain("queued");
    expect(stderr).toContain("the time is up; 1 deployment goes on, nothing is cancelled");
    expect(stderr).toContain("--follow");
  });

  test("is left by Ctrl-C with 130 and goes on", async () => {
    await using fake = await startFleet("nuc");
    const controller = new AbortController();
    const command = activate(fake, [`nuc=${SYSTEM}`], { signal: controller.signal });
    await followed(fake);
    controller.abort(new NixdeployError("interrupted", "interrupted"));
    const { exitCode, stderr } = await command.result;
    expect(exitCode).toBe(130);
    expect(stderr).toContain(`--follow, or cancel with: nixdeploy cancel ${fake.rollouts[0]?.id}`);
  });

  test("whose stream is cut goes on; a revoked token then ends it with 77", async () => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, [`nuc=${SYSTEM}`]);
    await followed(fake);
    fake.cutConnections();
    await waitFor("the second stream", () => fake.followers === 1);
    fake.appendLog("nuc", "still here");
    await waitFor("the line", () => command.stderr().includes("nuc | still here"));
    fake.intercept = async () => problem(new NixdeployError("denied", "cannot log in: the token was revoked"));
    fake.cutConnections();
    const { exitCode, stderr } = await command.result;
    expect(exitCode).toBe(77);
    expect(stderr).toContain("the token was revoked");
    expect(stderr).toContain("lost the connection to the coordinator");
  });
});

describe("what is shown", () => {
  test("a failure shows its log, whoever looks on; what went well shows none on a terminal", async () => {
    await using fake = await startFleet("nuc", "tv");
    const command = activate(fake, [`nuc=${SYSTEM}`, `tv=${SYSTEM}`], { isTerminal: true });
    await followed(fake);
    fake.appendLog("nuc", "all is well");
    fake.appendLog("tv", "one", "two", "three");
    fake.setDeployment("tv", { state: "failed", reason: "no" });
    // Something becomes known after the end: the log is not shown once more.
    fake.setDeployment("tv", { state: "failed", reason: "no", stopRequested: "cancelled" });
    fake.setDeployment("nuc", { state: "succeeded" });
    const { exitCode, stderr } = await command.result;
    expect(exitCode).toBe(1);
    expect(stderr.split("tv | one\n")).toHaveLength(2);
    expect(stderr).toContain("tv | one\ntv | two\ntv | three\n");
    expect(stderr).not.toContain("nuc | all is well");
  });

  test("--logs shows every line on a terminal, once", async () => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, ["--logs", `nuc=${SYSTEM}`], { isTerminal: true });
    await followed(fake);
    fake.appendLog("nuc", "one", "two");
    fake.setDeployment("nuc", { state: "failed", reason: "no" });
    const { stderr } = await command.result;
    expect(stderr.split("nuc | one\n")).toHaveLength(2);
    expect(stderr.split("nuc | two\n")).toHaveLength(2);
  });

  test("of many agents, off a terminal: what went wrong with its log, and counts", async () => {
    const names = Array.from({ length: 60 }, (_, index) => `agent-${index}`);
    await using fake = await startFleet(...names);
    const command = activate(
      fake,
      names.map((name) => `${name}=${SYSTEM}`),
    );
    await followed(fake);
    for (const name of names) fake.appendLog(name, `log of ${name}`);
    for (const name of names) fake.setDeployment(name, { state: name === "agent-7" ? "degraded" : "succeeded" });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(1);
    expect(stderr).toContain("agent-7 | log of agent-7\nagent-7: degraded\n");
    expect(stderr).not.toContain("log of agent-8");
    expect(stderr).toContain("60 agents: 59 succeeded, 1 degraded\n");
    expect(stderr).toContain("and 10 more\n");
    expect(stdout.split("\n")).toHaveLength(62);
  });

  test("--events: all that happens as JSON lines, the last of them the result", async () => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, ["--events", `nuc=${SYSTEM}`]);
    await followed(fake);
    fake.setDeployment("nuc", { state: "fetching" });
    fake.sendProgress("nuc", { paths: 1, pathsTotal: 4, bytes: 1, bytesTotal: 4 });
    fake.appendLog("nuc", "one");
    await waitFor("the line", () => command.stdout().includes('"event":"log"'));
    fake.cutConnections();
    await waitFor("the second stream", () => fake.followers === 1);
    fake.setDeployment("nuc", { state: "succeeded" });
    const { exitCode, stdout, stderr } = await command.result;
    expect([exitCode, stderr]).toEqual([0, ""]);
    const events = z.array(eventSchema).parse(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line)),
    );
    const names = events.map(({ event }) => event);
    expect(names[0]).toBe("rollout");
    expect(names.filter((name) => name !== "deployment").slice(1)).toEqual([
      ...["progress", "log", "contact", "contact", "result"],
    ]);
    const dataOf = (name: string) => events.find(({ event }) => event === name)?.data;
    expect(dataOf("progress")).toMatchObject({ agent: "nuc", bytes: 1, bytesTotal: 4, bytesPerSecond: null });
    expect(dataOf("log")).toMatchObject({ agent: "nuc", n: 1, stream: "out", text: "one" });
    expect(dataOf("result")).toMatchObject({
      outcome: "succeeded",
      deployments: [{ agent: "nuc", durationMs: 12_000 }],
    });
    expect((await activate(fake, ["--events", "--json", `nuc=${SYSTEM}`]).result).exitCode).toBe(2);
  });

  test.each([
    [{ state: "succeeded" }, "succeeded", "succeeded"],
    [{ state: "rolled-back" }, "failed", "rolled-back"],
  ] as const)("--json says what came of it: %p", async (change, outcome, ofDeployment) => {
    await using fake = await startFleet("nuc");
    const command = activate(fake, ["--json", `nuc=${SYSTEM}`]);
    await followed(fake);
    fake.setDeployment("nuc", change);
    const result: unknown = JSON.parse((await command.result).stdout);
    expect(result).toMatchObject({ outcome, plan: null, deployments: [{ outcome: ofDeployment, durationMs: 12_000 }] });
  });
});

describe("in GitHub Actions", () => {
  const NASTY = ["::set-output name=url::evil", "##[add-mask]x", "::endgroup::"] as const;

  test("logs are folded and command nothing; annotation, page and outputs say what came of it", async () => {
    await using directory = await createTemporaryDirectory("workflow");
    await using fake = await startFleet("nuc", "tv");
    const [summary, output] = [directory.join("summary.md"), directory.join("output")];
    const env = { GITHUB_ACTIONS: "true", GITHUB_STEP_SUMMARY: summary, GITHUB_OUTPUT: output };
    const command = activate(fake, [`nuc=${SYSTEM}`, `tv=${SYSTEM}`], { env });
    await followed(fake);
    fake.appendLog("nuc", ...NASTY);
    fake.appendLog("tv", ...NASTY);
    fake.setDeployment("nuc", { state: "succeeded" });
    fake.setDeployment("tv", { state: "failed", reason: `no\r${NASTY.join("\r")}` });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(1);
    const { commands } = runWorkflowLog(stderr);
    const group = ["group", "stop-commands", expect.stringMatching(/^[0-9a-f]{32}$/), "endgroup"];
    expect(commands.map(({ name }) => name)).toEqual([...group, ...group, "error"]);
    expect(commands.find(({ name }) => name === "error")?.properties).toEqual({ title: "tv: failed" });
    expect(new Set(commands.map(({ name }) => name).filter((name) => name.length === 32)).size).toBe(2);
    expect(runWorkflowLog(stdout).commands).toEqual([]);
    expect(await readFile(summary, "utf8")).toContain("### ❌ Deployment failed");
    const outputs = await readFile(output, "utf8");
    for (const line of [`${fake.rollouts[0]?.url}`, "failed", "tv"]) expect(outputs.split("\n")).toContain(line);
  });

  test("a refusal is an annotation with every fault", async () => {
    await using fake = await startFleet("nuc");
    const { exitCode, stderr } = await activate(fake, [`tv=${SYSTEM}`, `pi=${SYSTEM}`], {
      env: { GITHUB_ACTIONS: "true", GITHUB_OUTPUT: "/nowhere/at/all" },
    }).result;
    expect(exitCode).toBe(1);
    const [annotation, ...others] = runWorkflowLog(stderr).commands;
    expect(others).toEqual([]);
    expect(annotation).toMatchObject({ name: "error", properties: { title: "nothing was deployed" } });
    expect(annotation?.data).toContain("agent pi: no such agent");
    expect(stderr).toContain("warn: cannot write to /nowhere/at/all (GITHUB_OUTPUT): ");
  });

  test("a rollout that is only started has its page and outputs too", async () => {
    await using directory = await createTemporaryDirectory("workflow");
    await using fake = await startFleet("nuc");
    const output = directory.join("output");
    const env = { GITHUB_ACTIONS: "true", GITHUB_OUTPUT: output };
    expect((await activate(fake, ["--async", `nuc=${SYSTEM}`], { env }).result).exitCode).toBe(0);
    expect(await readFile(output, "utf8")).toContain(`${fake.rollouts[0]?.id}`);
  });
});

describe("before it starts", () => {
  const plan = (path: string): NonNullable<FakeCoordinator["plan"]> => ({
    workspace: "default",
    agents: [{ agent: "nuc", contact: "online", from: path, to: path, diff: null, why: null }],
    diffs: [],
  });

  test("what would change is said; --dry-run stops there, with the plan as its result", async () => {
    await using fake = await startFleet("nuc");
    fake.plan = plan(SYSTEM);
    const started = await activate(fake, ["--async", `nuc=${SYSTEM}`]).result;
    expect([started.exitCode, started.stderr.split("\n")[0]]).toEqual([0, "nuc: runs it already"]);
    expect(fake.rollouts).toHaveLength(1);
    const dry = await activate(fake, ["--dry-run", `nuc=${SYSTEM}`]).result;
    expect([dry.exitCode, dry.stdout]).toEqual([0, "nuc: runs it already\n"]);
    const json = await activate(fake, ["--dry-run", "--json", `nuc=${SYSTEM}`]).result;
    expect(JSON.parse(json.stdout)).toEqual(fake.plan);
    expect(fake.rollouts).toHaveLength(1);
  });

  test("--dry-run is refused as the rollout would be, and by a coordinator that cannot tell", async () => {
    await using fake = await startFleet("nuc");
    const unable = await activate(fake, ["--dry-run", `nuc=${SYSTEM}`]).result;
    expect([unable.exitCode, unable.stdout]).toEqual([1, ""]);
    fake.plan = plan(SYSTEM);
    const refused = await activate(fake, ["--dry-run", `nuc=${SYSTEM}`, `tv=${SYSTEM}`]).result;
    expect([refused.exitCode, refused.stdout]).toEqual([1, ""]);
    expect(refused.stderr).toContain("  - agent tv: no such agent");
  });
});

describe("the request", () => {
  test("carries mode, description, CI facts and rollback scripts; only the chosen agents", async () => {
    await using directory = await createTemporaryDirectory("activate");
    await using fake = await startFleet("nuc", "tv");
    const spec = { agents: { nuc: SYSTEM, tv: SYSTEM }, rollbackScript: { "x86_64-linux": SYSTEM }, extra: 1 };
    await writeFile(directory.join("deploy.json"), JSON.stringify(spec));
    const flags = [
      "--agent",
      "tv",
      "--mode",
      "boot",
      "--description",
      "new kernel",
      "--require-online",
      "--retry",
      "--async",
    ];
    const env = { GITHUB_REPOSITORY: "acme/fleet", GITHUB_SHA: "abc" };
    const { exitCode, stderr } = await activate(fake, [directory.join("deploy.json"), ...flags], { env }).result;
    expect(exitCode).toBe(0);
    expect(stderr).toContain("warn: ");
    expect(stderr).toContain('"extra" is not known to this version');
    const expected: unknown = {
      agents: { tv: SYSTEM },
      rollbackScript: { "x86_64-linux": SYSTEM },
      mode: "boot",
      description: "new kernel",
      requireOnline: true,
      retry: true,
      origin: { repository: "acme/fleet", commit: "abc" },
    };
    expect(fake.rolloutRequests as unknown).toEqual([expected]);
  });
});

describe("refused before anything starts", () => {
  test("a spec with unknown agents: all of them, 1", async () => {
    await using fake = await startFleet("nuc");
    const { exitCode, stderr } = await activate(fake, [`nuc=${SYSTEM}`, `tv=${SYSTEM}`, `pi=${SYSTEM}`]).result;
    expect(exitCode).toBe(1);
    expect(stderr).toContain("  - agent tv: no such agent");
    expect(stderr).toContain("  - agent pi: no such agent");
    expect(fake.rollouts).toEqual([]);
  });

  test.each([
    ["no spec", [], 2, "SPEC|NAME=PATH is missing"],
    ["a spec that is not there", ["./nothing.json"], 2, "no such file"],
    ["a spec that neither store nor cache has", [SYSTEM], 1, "neither the local store nor the cache has it"],
    ["an agent that the spec lacks", ["nuc=/nix/store/0-x"], 2, "is no store path"],
    ["an unknown name", [`nuc=${SYSTEM}`, "--agent", "tv"], 2, 'cannot deploy to "tv": the spec has no such agent'],
    ["a wrong mode", [`nuc=${SYSTEM}`, "--mode", "reboot"], 2, "--mode is one of"],
    ["an empty timeout", [`nuc=${SYSTEM}`, "--timeout", "0s"], 2, "--timeout"],
  ] as const)("%s", async (_what, words, exitCode, text) => {
    await using fake = await startFleet("nuc");
    const result = await activate(fake, words).result;
    expect([result.exitCode, result.stdout]).toEqual([exitCode, ""]);
    expect(result.stderr).toContain(text);
    expect(fake.rollouts).toEqual([]);
  });

  test("without a coordinator: 75", async () => {
    await using fake = await startFleet("nuc");
    await fake.stop();
    const { exitCode, stderr } = await activate(fake, [`nuc=${SYSTEM}`]).result;
    expect(exitCode).toBe(75);
    expect(stderr).toContain("the connection was refused");
  });

  test("without a token, or a URL: 2, naming the variables", async () => {
    const noToken = await startCommand(["activate", `nuc=${SYSTEM}`, "--url", "http://127.0.0.1:1"]).result;
    expect([noToken.exitCode, noToken.stderr]).toEqual([2, expect.stringContaining("NIXDEPLOY_ACTIVATE_TOKEN")]);
    const noUrl = await startCommand(["activate", `nuc=${SYSTEM}`]).result;
    expect([noUrl.exitCode, noUrl.stderr]).toEqual([2, expect.stringContaining("NIXDEPLOY_URL")]);
  });
});
