/** `retry`, `rollback`, `redeploy` and `cancel` against a coordinator that does as the test says: what is printed where, and the exit codes. */
import { describe, expect, test } from "bun:test";
import { NixdeployError } from "../../src/errors.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { type RunningCommand, startCommand } from "../support/run-command.ts";
import { waitFor } from "../support/wait-for.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;

const PLAN = { workspace: "default", agents: [], diffs: [] };

function start(fake: FakeCoordinator, ...words: readonly string[]): RunningCommand {
  return startCommand(words, { env: { NIXDEPLOY_URL: fake.url, NIXDEPLOY_ACTIVATE_TOKEN: FAKE_TOKEN } });
}

/** Two agents, of which the second could not take its deployment. */
async function startFailed(): Promise<FakeCoordinator> {
  const fake = startFakeCoordinator();
  for (const agent of ["nuc", "tv"]) fake.addAgent(agent);
  await start(fake, "activate", "--async", `nuc=${SYSTEM}`, `tv=${SYSTEM}`).result;
  fake.setDeployment("nuc", { state: "succeeded" });
  fake.setDeployment("tv", { state: "failed", reason: "The disk is full." });
  return fake;
}

describe("retry", () => {
  test("follows the new rollout to its end, like activate", async () => {
    await using fake = await startFailed();
    const command = start(fake, "retry", "tv");
    await waitFor("it to follow", () => fake.followers > 0);
    fake.setDeployment("tv", { state: "succeeded" });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(0);
    expect(stdout.replace(/ +/g, " ")).toBe(
      `AGENT OUTCOME DURATION URL REASON\ntv succeeded 12 s ${fake.deploymentOf("tv").url}\n`,
    );
    expect(stderr).toContain(`tv: queued ${SYSTEM}`);
  });

  test("that fails again ends with 1", async () => {
    await using fake = await startFailed();
    const command = start(fake, "retry", "tv", "--json");
    await waitFor("it to follow", () => fake.followers > 0);
    fake.setDeployment("tv", { state: "rolled-back", reason: "It broke." });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(1);
    expect(stderr).toContain("cannot deploy to tv");
    expect(rolloutResultSchema.parse(JSON.parse(stdout)).deployments).toMatchObject([{ state: "rolled-back" }]);
  });

  test("with --async waits for nothing; its time that is up is 75", async () => {
    await using fake = await startFailed();
    const started = await start(fake, "retry", "tv", "--async").result;
    expect([started.exitCode, started.stdout]).toEqual([0, expect.stringMatching(/^\w{16}\n$/)]);
    fake.setDeployment("tv", { state: "failed", reason: "The disk is full." });
    expect((await start(fake, "retry", "tv", "--timeout", "1s").result).exitCode).toBe(75);
  });

  test("of what succeeded, or of nothing, is refused", async () => {
    await using fake = await startFailed();
    fake.setDeployment("tv", { state: "succeeded" });
    const refused = await start(fake, "retry", "nuc", "tv").result;
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("nuc: no");
    expect((await start(fake, "retry").result).exitCode).toBe(2);
  });
});

describe("rollback", () => {
  const BEFORE = `/nix/store/${EXAMPLE_HASH_PART}-before`;

  test("follows the rollout of what ran before; --dry-run starts nothing", async () => {
    await using fake = await startFailed();
    fake.plan = PLAN;
    for (const agent of ["nuc", "tv"]) fake.setDeployment(agent, { state: "succeeded", previousPath: BEFORE });
    const dry = await start(fake, "rollback", "nuc", "tv", "--dry-run").result;
    expect(dry.exitCode).toBe(0);
    expect(dry.stdout.replace(/ +/g, " ")).toBe(
      `AGENT RUNS WOULD GET\nnuc ${SYSTEM} ${BEFORE}\ntv ${SYSTEM} ${BEFORE}\n\n` +
        "nuc, tv: cannot compare: it is an example\n",
    );
    expect(dry.stderr).toBe("nothing was started (--dry-run)\n");
    const json = await start(fake, "rollback", "nuc", "--dry-run", "--json").result;
    expect(JSON.parse(json.stdout)).toMatchObject({ agents: [{ agent: "nuc", to: BEFORE }, {}] });
    expect(fake.rollouts).toHaveLength(1);
    const command = start(fake, "rollback", "nuc", "tv");
    await waitFor("it to follow", () => fake.followers > 0);
    fake.setDeployment("nuc", { state: "succeeded" });
    fake.setDeployment("tv", { state: "failed", reason: "The disk is full." });
    const { exitCode, stderr } = await command.result;
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`nuc: queued ${BEFORE}`);
  });
});

describe("redeploy", () => {
  test("follows the older rollout's paths, of all agents or of one", async () => {
    await using fake = await startFailed();
    const [{ id } = { id: "" }] = fake.rollouts;
    const all = await start(fake, "redeploy", id, "--async", "--json").result;
    expect(rolloutResultSchema.parse(JSON.parse(all.stdout)).deployments).toHaveLength(2);
    const command = start(fake, "redeploy", id, "--agent", "tv");
    await waitFor("it to follow", () => fake.followers > 0);
    fake.setDeployment("tv", { state: "succeeded" });
    expect((await command.result).exitCode).toBe(0);
    expect(fake.rollouts.at(-1)?.deployments.map(({ agent }) => String(agent))).toEqual(["tv"]);
    expect((await start(fake, "redeploy").result).exitCode).toBe(2);
  });
});

describe("what would change", () => {
  test("is said before anything is started, of a retry and a redeployment, too", async () => {
    await using fake = await startFailed();
    fake.plan = PLAN;
    const [{ id } = { id: "" }] = fake.rollouts;
    for (const [words, agents] of [
      [["retry", "tv"], "tv"],
      [["redeploy", id], "nuc, tv"],
    ] as const) {
      const dry = await start(fake, ...words, "--dry-run").result;
      expect([dry.exitCode, dry.stdout]).toEqual([0, expect.stringContaining(`${agents}: cannot compare`)]);
      expect(fake.rollouts).toHaveLength(1);
    }
    const { exitCode, stderr, stdout } = await start(fake, "redeploy", id, "--async", "--events").result;
    expect([exitCode, stderr]).toEqual([0, expect.stringContaining("Follow with")]);
    expect(stdout.split("\n").map((line) => line.slice(0, 16))).toEqual(['{"event":"plan",', '{"event":"rollou', ""]);
    const brief = await start(fake, "redeploy", id, "--async").result;
    expect(brief.stderr).toStartWith("nuc, tv: cannot compare: it is an example\nrollout ");
  });

  test("that is refused is refused at once; under a key that may have started it, it is for the start to say", async () => {
    await using fake = await startFailed();
    fake.plan = PLAN;
    const key = ["--async", "--idempotency-key", "release-1"];
    fake.setDeployment("tv", { state: "succeeded" });
    const refused = await start(fake, "retry", "tv", "--async").result;
    expect([refused.exitCode, fake.requests.at(-1)?.path]).toEqual([1, "/api/v1/retry-plans"]);
    const keyed = await start(fake, "retry", "tv", ...key).result;
    expect([keyed.exitCode, fake.requests.at(-1)?.path]).toEqual([1, "/api/v1/retries"]);
  });

  test("whoever leaves before the coordinator has answered is told that it may have been started", async () => {
    await using fake = await startFailed();
    fake.intercept = async (request, next) =>
      request.path === "/api/v1/retries" ? await new Promise<Response>(() => {}) : await next();
    const stop = new AbortController();
    const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_ACTIVATE_TOKEN: FAKE_TOKEN };
    const command = startCommand(["retry", "tv"], { env, signal: stop.signal });
    await waitFor("the request", () => fake.requests.some(({ path }) => path === "/api/v1/retries"));
    stop.abort(new NixdeployError("interrupted", "interrupted"));
    const { exitCode, stderr } = await command.result;
    expect(exitCode).toBe(130);
    expect(stderr).toContain("The rollout may have been started all the same: `nixdeploy status`");
  });

  test("of a rollout that is refused, CI gets an annotation and an output, whichever command it was", async () => {
    await using fake = await startFailed();
    fake.setDeployment("tv", { state: "succeeded" });
    const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_ACTIVATE_TOKEN: FAKE_TOKEN, GITHUB_ACTIONS: "true" };
    const { stderr } = await startCommand(["retry", "tv"], { env }).result;
    expect(stderr).toContain("::error title=nothing was deployed::cannot try again");
  });
});

/** It was told of its deployment, and then its connection was lost. */
const UNHEARD = {
  offeredAt: "2026-11-22T13:05:59.000Z",
  lastSeenAt: "2026-11-22T13:06:00.000Z",
  expiresAt: "2026-11-23T13:05:00.000Z",
} as const;

describe("an agent that was offered a deployment, and is out of contact", () => {
  test("holds nobody up, and nobody claims that it has not begun", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    const command = start(fake, "activate", `nuc=${SYSTEM}`);
    await waitFor("it to follow", () => fake.followers > 0);
    fake.setDeployment("nuc", { state: "offered", contact: "offline", ...UNHEARD });
    const { exitCode, stdout, stderr } = await command.result;
    expect(exitCode).toBe(0);
    const words =
      "it was offered this deployment at 2026-11-22 13:05 UTC, and was heard of last at 2026-11-22 13:06 UTC: " +
      "it may have begun, and its word is waited for, until 2026-11-23 13:05 UTC";
    expect(stderr).toContain(`nuc is offline: ${words}`);
    expect(stdout).toContain(`offline: ${words}`);
  });

  test("is shown with what it said after all", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    await start(fake, "activate", "--async", `nuc=${SYSTEM}`).result;
    const lateOutcome = { outcome: "succeeded", reason: "It is live.", at: "2026-11-24T13:05:00.000Z" } as const;
    fake.setDeployment("nuc", { state: "expired", reason: "It may have been done.", lateOutcome });
    const { stdout } = await start(fake, "logs", "nuc").result;
    expect(stdout).toContain("nuc: expired: It may have been done. The device said later: succeeded: It is live.");
  });
});

describe("cancel", () => {
  test("says of each what it has come to", async () => {
    await using fake = startFakeCoordinator();
    for (const agent of ["a", "b", "c", "d"]) fake.addAgent(agent);
    await start(fake, "activate", "--async", ...["a", "b", "c", "d"].map((agent) => `${agent}=${SYSTEM}`)).result;
    fake.setDeployment("b", { state: "fetching" });
    fake.setDeployment("c", { state: "confirming" });
    fake.setDeployment("d", { state: "offered", contact: "unknown", ...UNHEARD });
    const { exitCode, stdout } = await start(fake, "cancel", "a").result;
    expect(exitCode).toBe(0);
    expect(stdout.split("\n").slice(0, -1)).toEqual([
      "a: cancelled",
      "b is asked to stop",
      "c has begun to activate it: it is asked to go back",
      "d is asked to stop, when it is in contact again: it was offered this deployment at 2026-11-22 13:05 UTC, and was heard of last " +
        "at 2026-11-22 13:06 UTC: it may have begun, and its word is waited for, until 2026-11-23 13:05 UTC",
    ]);
    const { stdout: json } = await start(fake, "cancel", "a", "--json").result;
    expect(JSON.parse(json)).toMatchObject({
      deployments: [{ state: "cancelled" }, { stopRequested: "cancelled" }, {}, {}],
    });
  });

  test("of what has ended, or of nothing, is refused", async () => {
    await using fake = await startFailed();
    const refused = await start(fake, "cancel", "nuc").result;
    expect(refused.exitCode).toBe(1);
    expect((await start(fake, "cancel").result).exitCode).toBe(2);
  });
});

test("a rollback that is tried again says when, and agents show it", async () => {
  await using fake = startFakeCoordinator();
  fake.addAgent("nuc");
  const command = start(fake, "activate", `nuc=${SYSTEM}`);
  await waitFor("it to follow", () => fake.followers > 0);
  const notBefore = "2026-11-22T13:05:59.000Z";
  const retriedBy = { id: "bbbbbbbbbbbbbbbb", rollout: "ssssssssssssssss", state: "queued", notBefore } as const;
  fake.setDeployment("nuc", { state: "rolled-back", reason: "Nobody logged in.", retriedBy });
  const { exitCode, stdout, stderr } = await command.result;
  expect(exitCode).toBe(1);
  const words = "Nobody logged in. Tried again at 2026-11-22 13:05 UTC (rollout ssssssssssssssss).";
  expect(stderr).toContain(`nuc: rolled back: ${words}`);
  expect(stdout).toContain(words);
});
