/** What may come next: words of a line, plans by declarations, and values asked of a coordinator, which may be away. */
import { describe, expect, test } from "bun:test";
import { afterProgram, splitCommandLine } from "../../src/commands/command-line/command-line.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

test.each<[string, readonly string[], string]>([
  ["nixdeploy ag", ["nixdeploy"], "ag"],
  ["nixdeploy agents ", ["nixdeploy", "agents"], ""],
  ["", [], ""],
  ["a  'b c' d", ["a", "b c"], "d"],
  ["a '' ", ["a", ""], ""],
  ["a 'open b", ["a"], "open b"],
  ['a "b \\"c\\$d\\e" f\\ g', ["a", 'b "c$d\\e'], "f g"],
  ["a b\\", ["a"], "b\\"],
])("words of %j", (line, words, current) => expect(splitCommandLine(line)).toEqual({ words, current }));

test.each<[string, readonly string[] | null]>([
  ["nixdeploy agents x", ["agents"]],
  ["sudo A=1 /usr/bin/nixdeploy agents x", ["agents"]],
  ["nixdeplo", null],
  ["ls nixdeploy-x y", null],
])("behind the program in %j", (line, words) => {
  expect(afterProgram(splitCommandLine(line), "nixdeploy")?.words ?? null).toEqual(words as string[] | null);
});

async function complete(line: string, fake?: FakeCoordinator, env: Record<string, string> = {}) {
  await using directory = await createTemporaryDirectory("complete");
  const access = fake === undefined ? {} : { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  const variables = { XDG_CONFIG_HOME: directory.path, ...access, ...env };
  const { exitCode, stdout, stderr } = await runCommand(["complete", "--", `nixdeploy ${line}`], { env: variables });
  expect([exitCode, stderr]).toEqual([0, ""]);
  return stdout
    .split("\n")
    .filter((text) => text !== "")
    .map((text) => text.split("\t")[0] ?? "");
}

describe("commands and flags", () => {
  test.each<[string, readonly string[]]>([
    ["ag", ["agent", "agents"]],
    ["frob", []],
    ["compl", ["completion"]],
    ["frobnicate ", []],
    ["--ver", ["--verbose", "--version"]],
    ["--json stat", ["status"]],
    ["agents re", ["remove", "rename", "reject"]],
    ["token ", ["create", "list", "revoke"]],
    ["token cr", ["create"]],
    ["token create --k", ["--kind"]],
    ["token create --kind ", ["admin", "activate", "push", "read", "agent"]],
    ["token create --kind pu", ["push"]],
    ["token create --kind=pu", ["--kind=push"]],
    ["token create --kind push --kind", []],
    ["token create --json --j", []],
    ["token --j", ["--json"]],
    ["--log-format ", ["text", "json"]],
    ["status --log-format=j", ["--log-format=json"]],
    ["activate --mode dry", ["dry-activate"]],
    ["activate --agent x --ag", ["--agent"]],
    ["push ./resu", [":files"]],
    ["push -- --j", [":files"]],
    ["push --signing-key-file ", [":files"]],
    ["serve --data-dir /", [":directories"]],
    ["status --url http", []],
    ["activate --timeout 3", []],
    ["workspace create x", []],
    ["audit x", []],
  ])("%s", async (line, expected) => {
    expect(await complete(line)).toEqual([...expected]);
  });

  test("every command that is shown, with its summary", async () => {
    const all = await complete("");
    expect(all).toContain("workspace");
    expect(all).not.toContain("complete");
  });
});

describe("values of the coordinator", () => {
  test("agents, where agents are named", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    fake.addAgent("nas", "offline");
    for (const line of [
      "agents rename ",
      "agents ",
      "activate --agent ",
      "token create --agent ",
      "agents remove nuc ",
    ]) {
      expect(await complete(line, fake)).toEqual(expect.arrayContaining(["nuc", "nas"]));
    }
    expect(await complete("agents remove nu", fake)).toEqual(["nuc"]);
    expect(await complete("activate --agent=na", fake)).toEqual(["--agent=nas"]);
    expect(await complete("activate n", fake)).toEqual([":files", "nuc=", "nas="]);
    expect(await complete("agents rename nuc ", fake)).toEqual([]);
    expect(await complete(`agents remove n --url ${fake.url}`, undefined, { NIXDEPLOY_TOKEN: FAKE_TOKEN })).toEqual([]);
    expect(await complete(`agents remove --url ${fake.url} nu`, undefined, { NIXDEPLOY_TOKEN: FAKE_TOKEN })).toEqual([
      "nuc",
    ]);
  });

  test("caches and tokens", async () => {
    await using fake = startFakeCoordinator();
    const created = await runCommand(["token", "create", "--kind", "push", "--json"], {
      env: { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN },
    });
    const { id }: { id: string } = JSON.parse(created.stdout);
    expect(await complete("token revoke ", fake)).toEqual([id]);
    expect(await complete("cache show d", fake)).toEqual(["default"]);
    expect(await complete("push --cache ", fake)).toEqual(["default"]);
    expect(await complete("cache create d", fake)).toEqual([]);
  });

  test("one that hangs, refuses or is away is left out in time, without a word", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    fake.intercept = () => new Promise(() => {});
    const startedMs = performance.now();
    expect(await complete("agents re", fake)).toEqual(["remove", "rename", "reject"]);
    expect(performance.now() - startedMs).toBeLessThan(8_000);
    fake.intercept = async () => new Response("no", { status: 500 });
    expect(await complete("agents remove n", fake)).toEqual([]);
    expect(
      await complete("agents remove n", undefined, {
        NIXDEPLOY_URL: "http://127.0.0.1:9",
        NIXDEPLOY_TOKEN: FAKE_TOKEN,
      }),
    ).toEqual([]);
    expect(await complete("agents remove n", undefined, { NIXDEPLOY_URL: "nonsense" })).toEqual([]);
  });
});

test("ids of rollouts are offered where a rollout belongs, and nowhere else", async () => {
  await using fake = startFakeCoordinator();
  fake.addAgent("nuc");
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  await runCommand(["activate", "--async", `nuc=/nix/store/${EXAMPLE_HASH_PART}-system`], { env });
  const [{ id } = { id: "" }] = fake.rollouts;
  expect(await complete("redeploy ", fake)).toContain(id);
  expect(await complete("cancel ", fake)).toContain(id);
  expect(await complete("webhook redeliver ", fake)).toEqual([]);
  expect(await complete("events --since ", fake)).toEqual([]);
});

test("what a description says is one line, and nothing that a terminal obeys", async () => {
  await using fake = startFakeCoordinator();
  const description = "a\tb\u001b[2J\n:files\u009b";
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  fake.intercept = async (_request, next) => {
    const answer = await next();
    const text = (await answer.text()).replaceAll('"CI"', JSON.stringify(description));
    return new Response(text, { status: answer.status, headers: answer.headers });
  };
  await runCommand(["token", "create", "--kind", "push", "--description", "CI"], { env });
  const { stdout } = await runCommand(["complete", "--", "nixdeploy token revoke "], { env });
  expect(stdout).toMatch(/^[0-9a-z]{16}\tpush a b\[2J :files\n$/);
});
