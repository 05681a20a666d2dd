/** `token`, `cache`, `agents`, `status` and `logs`: results on stdout, and the ways to the coordinator. */
import { describe, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { cacheResultSchema, tokenResultSchema } from "../support/results.ts";
import { type RunCommandOptions, runCommand, startCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;

const run = (fake: FakeCoordinator, words: readonly string[], options: RunCommandOptions = {}) =>
  runCommand(words, { ...options, env: { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN } });

describe("token", () => {
  test("create prints the token alone; list and revoke know it by its id", async () => {
    await using fake = startFakeCoordinator();
    const words = ["token", "create", "--kind", "push", "--description", "CI", "--expires", "90d"];
    const created = await run(fake, words);
    expect(created.exitCode).toBe(0);
    expect(created.stdout).toMatch(/^nd_push_[0-9a-z]{16}_\w{49}\n$/);
    expect(created.stderr).toBe("");
    const id = fake.tokens[0]?.id ?? "";
    const listed = await run(fake, ["token", "list"]);
    expect(listed.stdout).toContain(id);
    expect(listed.stdout).toContain("2026-04-01");
    expect((await run(fake, ["token", "revoke", id])).exitCode).toBe(0);
    expect(fake.tokens).toEqual([]);
    const again = await run(fake, ["token", "revoke", id]);
    expect([again.exitCode, again.stderr]).toEqual([1, expect.stringContaining("cannot find the token")]);
  });

  test("--json", async () => {
    await using fake = startFakeCoordinator();
    const { stdout } = await run(fake, ["token", "create", "--kind", "agent", "--json"]);
    const created = tokenResultSchema.parse(JSON.parse(stdout));
    expect(created).toMatchObject({ kind: "agent", workspace: "default", expiresAt: null });
    const listed: unknown = JSON.parse((await run(fake, ["token", "list", "--json"])).stdout);
    expect(listed).toMatchObject({ tokens: [{ id: created.id }] });
  });

  test.each([
    [["token", "create"], "--kind is missing"],
    [["token", "create", "--kind", "root"], "--kind is one of admin, activate, push, read, agent"],
    [["token", "create", "--kind", "push", "--expires", "soon"], "--expires"],
    [["token", "create", "--kind", "push", "--workspace", "a b"], "is no workspace name"],
    [["token", "revoke"], "ID is missing"],
    [["token", "revoke", "nonsense"], "is no token id"],
  ])("%p is a usage error", async (words, text) => {
    const { exitCode, stdout, stderr } = await runCommand(words);
    expect([exitCode, stdout, stderr]).toEqual([2, "", expect.stringContaining(text)]);
  });
});

describe("audit", () => {
  test("who did what, on the coordinator's own host", async () => {
    await using directory = await createTemporaryDirectory("audit");
    const here = (...words: readonly string[]) => runCommand([...words, "--data-dir", directory.path]);
    expect((await here("token", "create", "--kind", "push", "--description", "CI")).exitCode).toBe(0);
    const shown = await here("audit", "--since", "1d");
    expect(shown.exitCode).toBe(0);
    expect(shown.stdout).toMatch(
      /the coordinator's own host +here +POST \/tokens +token [0-9a-z]{16} +made, kind push CI/,
    );
    const listed: unknown = JSON.parse((await here("audit", "--json", "--limit", "1")).stdout);
    expect(listed).toMatchObject({ entries: [{ act: "POST /tokens", actor: { kind: "control" } }] });
  });

  test.each([
    [["audit", "--limit", "0"], "--limit"],
    [["audit", "--limit", "1001"], "--limit"],
    [["audit", "--since", "yesterday"], "--since"],
  ])("%p is a usage error", async (words, text) => {
    const { exitCode, stdout, stderr } = await runCommand(words);
    expect([exitCode, stdout, stderr]).toEqual([2, "", expect.stringContaining(text)]);
  });
});

describe("cache", () => {
  test("show and set", async () => {
    await using fake = startFakeCoordinator();
    const shown = await run(fake, ["cache", "show", "default", "--json"]);
    const cache = cacheResultSchema.parse(JSON.parse(shown.stdout));
    expect(cache).toMatchObject({ name: "default", url: `${fake.url}/cache/default`, public: false });
    const set = await run(fake, ["cache", "set", "default", "--public"]);
    expect(set.stdout).toContain("readable by: everyone");
    expect(fake.isCachePublic).toBe(true);
    expect((await run(fake, ["cache", "set", "default", "--private"])).stdout).toContain("whoever has a token");
  });

  test.each([[[]], [["--public", "--private"]]])("set with %p is a usage error", async (flags) => {
    const { exitCode, stderr } = await runCommand(["cache", "set", "default", ...flags]);
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining("one of --public and --private")]);
  });
});

describe("agents and status", () => {
  test("list the agents", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    fake.addAgent("away", "offline");
    const { stdout } = await run(fake, ["agents"]);
    expect(stdout).toMatch(/^AGENT +CONTACT +SYSTEM/);
    expect(stdout).toMatch(/^away +offline +x86_64-linux/m);
    const listed: unknown = JSON.parse((await run(fake, ["agents", "--json"])).stdout);
    expect(listed).toMatchObject({ agents: [{ name: "nuc" }, { name: "away" }] });
    const status = await run(fake, ["status"]);
    expect(status.stdout).toContain("agents:      1 online, 1 offline\n");
    expect(status.stdout).toMatch(/^nuc +online/m);
  });

  test("say briefly what a person should look at, and all of it in JSON", async () => {
    const other = `${SYSTEM}-other`;
    const units = ["a.service", "b.service", "c.service"];
    const cases = [
      [{}, ""],
      [{ failedUnits: [], failedUnitCount: 0, rebootNeeded: [] }, ""],
      [{ failedUnits: ["a.service"], failedUnitCount: 1 }, "1 unit failed: a.service"],
      [{ failedUnits: units, failedUnitCount: 60 }, "60 units failed: a.service, b.service, …"],
      [{ rebootNeeded: ["kernel", "initrd"] }, "reboot needed: new kernel, initrd"],
      [{ drift: { expected: SYSTEM, profile: other, current: null } }, "drift: not system"],
    ] as const;
    for (const [facts, attention] of cases) {
      await using fake = startFakeCoordinator();
      fake.addAgent("nuc", "online", facts);
      for (const command of ["agents", "status"]) {
        const lines = (await run(fake, [command])).stdout.trimEnd().split("\n");
        const [header = "", row = ""] = lines.slice(-2);
        expect(row.slice(header.indexOf("ATTENTION"))).toBe(attention);
      }
      const shown: unknown = JSON.parse((await run(fake, ["agents", "--json"])).stdout);
      expect(shown).toMatchObject({ agents: [facts] });
    }
  });

  test("an empty fleet prints nothing on stdout", async () => {
    await using fake = startFakeCoordinator();
    const stderr: unknown = expect.stringContaining("no agents yet");
    expect(await run(fake, ["agents"])).toMatchObject({ exitCode: 0, stdout: "", stderr });
  });
});

describe("logs", () => {
  async function deploy(fake: FakeCoordinator) {
    fake.addAgent("nuc");
    await run(fake, ["activate", "--async", `nuc=${SYSTEM}`]);
    const { id, rollout } = fake.deploymentOf("nuc");
    return { id, rollout };
  }

  test("of an agent, a deployment and a rollout, over all pages", async () => {
    await using fake = startFakeCoordinator();
    const { id, rollout } = await deploy(fake);
    fake.appendLog("nuc", "one", "two", "three", "four", "five");
    fake.setDeployment("nuc", { state: "succeeded" });
    for (const what of ["nuc", id, rollout]) {
      const { exitCode, stdout } = await run(fake, ["logs", what]);
      expect([exitCode, stdout]).toEqual([0, "one\ntwo\nthree\nfour\nfive\nnuc: succeeded\n"]);
    }
    const { stdout } = await run(fake, ["logs", "nuc", "--json"]);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line): unknown => JSON.parse(line));
    expect(lines).toHaveLength(5);
    expect(lines[0]).toMatchObject({ agent: "nuc", n: 1, text: "one" });
  });

  test("--follow goes on to the end, whose exit code it has", async () => {
    await using fake = startFakeCoordinator();
    await deploy(fake);
    fake.appendLog("nuc", "one");
    const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
    const command = startCommand(["logs", "nuc", "--follow"], { env });
    await waitFor("the first line", () => command.stdout() === "one\n");
    fake.appendLog("nuc", "two");
    fake.setDeployment("nuc", { state: "degraded", reason: "a unit failed" });
    expect(await command.result).toMatchObject({
      exitCode: 1,
      stdout: "one\ntwo\nnuc: degraded: a unit failed\n",
    });
  });

  test.each(["tv", "aaaaaaaaaaaaaaaa", "not a name"])("of %p, which is nothing", async (what) => {
    await using fake = startFakeCoordinator();
    await deploy(fake);
    const { exitCode, stderr } = await run(fake, ["logs", what]);
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining("no deployment or agent")]);
  });
});

describe("on the coordinator's own host", () => {
  test("--data-dir goes through the control socket, without token, whatever NIXDEPLOY_URL says", async () => {
    await using directory = await createTemporaryDirectory("data");
    await using fake = startFakeCoordinator({ socketPath: directory.join("control.sock") });
    const env = { NIXDEPLOY_URL: "http://127.0.0.1:1" };
    const created = await runCommand(["token", "create", "--kind", "admin", "--data-dir", directory.path], { env });
    expect([created.exitCode, created.stderr]).toEqual([0, ""]);
    expect(fake.requests[0]?.authorization).toBeNull();
    expect((await runCommand(["agents", "--data-dir", directory.path])).exitCode).toBe(0);
    const status = await runCommand(["status", "--json", "--data-dir", directory.path], { env });
    expect(JSON.parse(status.stdout)).toMatchObject({ isServing: true, agentList: [] });
    expect((await runCommand(["cache", "show", "default", "--data-dir", directory.path])).exitCode).toBe(0);
  });

  test("without a coordinator it works on the database itself", async () => {
    await using directory = await createTemporaryDirectory("data");
    await mkdir(directory.join("data"));
    const flags = ["--data-dir", directory.join("data")];
    const created = await runCommand(["token", "create", "--kind", "push", "--json", ...flags]);
    expect([created.exitCode, created.stderr]).toEqual([0, ""]);
    const { id } = tokenResultSchema.parse(JSON.parse(created.stdout));
    expect((await runCommand(["token", "list", ...flags])).stdout).toContain(id);
    expect((await runCommand(["token", "revoke", id, ...flags])).exitCode).toBe(0);
    expect((await runCommand(["cache", "set", "default", "--public", ...flags])).stdout).toContain("everyone");
    expect((await runCommand(["agents", ...flags])).exitCode).toBe(0);
    const status = await runCommand(["status", ...flags]);
    expect(status.stdout).toStartWith("coordinator: not running; this is what its database has\nagents:      0 online");
    expect(JSON.parse((await runCommand(["status", "--json", ...flags])).stdout)).toMatchObject({ isServing: false });
    const watch = await runCommand(["status", "--watch", ...flags]);
    expect([watch.exitCode, watch.stderr]).toEqual([1, expect.stringContaining("no coordinator runs on it")]);
  });

  test("neither URL nor data directory: a usage error that names both", async () => {
    const { exitCode, stderr } = await runCommand(["agents"]);
    expect(exitCode).toBe(2);
    for (const word of ["NIXDEPLOY_URL", "--url", "--data-dir"]) expect(stderr).toContain(word);
  });

  test("both on the command line, and a directory that is not there, are refused", async () => {
    const both = await runCommand(["agents", "--data-dir", "/tmp", "--url", "http://127.0.0.1:1"]);
    expect([both.exitCode, both.stderr]).toEqual([2, expect.stringContaining("cannot use --data-dir and --url")]);
    const absent = await runCommand(["agents", "--data-dir", "/nonexistent/nixdeploy"]);
    expect([absent.exitCode, absent.stderr]).toEqual([1, expect.stringContaining("there is none")]);
  });
});
