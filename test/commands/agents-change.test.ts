/** `agents` and its commands, tokens that are bound, and keys of caches, on the database of a coordinator that does not run. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { z } from "zod";
import { agentListSchema } from "../../src/api/agents.ts";
import { tokenListSchema } from "../../src/api/tokens.ts";
import { resolveRequest } from "../../src/commands/root.ts";
import { formatKeyFingerprint } from "../../src/key-fingerprint.ts";
import { publicKeyFromSeed } from "../../src/nix/signature.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";
import { runCommand } from "../support/run-command.ts";
import { createAgentIdentity, openScriptedAgent } from "../support/scripted-agent.ts";

let server: TestCoordinator;
beforeAll(async () => {
  server = await createTestCoordinator({ database: "file" });
  for (const [name, role] of [
    ["web-1", "web"],
    ["web-2", "web"],
    ["nuc", "tv"],
    ["old", "tv"],
  ] as const) {
    await (await server.connectAgent(name, { labels: { role } })).disconnect();
  }
});
afterAll(async () => await server[Symbol.asyncDispose]());

const run = (...words: string[]) => runCommand([...words, "--data-dir", server.directory]);

async function helpOf(...words: string[]): Promise<string> {
  const request = await resolveRequest({ words: [...words, "--help"], version: "0.0.0" });
  return request.kind === "print" ? request.text : "";
}

async function namesOf(...words: string[]): Promise<string[]> {
  const { stdout, stderr } = await run("agents", ...words, "--json");
  if (stdout === "") throw new Error(stderr);
  return agentListSchema.parse(JSON.parse(stdout)).agents.map(({ name }) => name);
}

describe("agents", () => {
  test.each([
    [[], ["nuc", "old", "web-1", "web-2"]],
    [["list"], ["nuc", "old", "web-1", "web-2"]],
    [["web-*"], ["web-1", "web-2"]],
    [
      ["list", "nuc", "label:role=web"],
      ["nuc", "web-1", "web-2"],
    ],
    [["--workspace", "default", "nuc"], ["nuc"]],
  ])("%p", async (words, names) => {
    expect(await namesOf(...words)).toEqual(names);
  });

  test("flags may stand before and after; a word of the group behind a flag is that flag's value", async () => {
    const { stdout } = await runCommand(["agents", "--json", "list", "nuc", "--data-dir", server.directory]);
    expect(agentListSchema.parse(JSON.parse(stdout)).agents).toHaveLength(1);
    const mistaken = await runCommand(["agents", "--workspace", "remove", "--data-dir", server.directory]);
    expect([mistaken.exitCode, mistaken.stderr]).toEqual([1, expect.stringContaining("the workspace remove")]);
    expect(await helpOf("agents")).toMatch(/^ {2}agents remove +Remove agents/m);
    expect(await helpOf("agents", "--json", "remove")).toContain("Usage: nixdeploy agents remove");
    expect(await helpOf("agents", "nuc", "remove")).toContain("Usage: nixdeploy agents [FLAGS] [AGENT…]");
  });

  test("what selects none is named", async () => {
    const { exitCode, stderr } = await run("agents", "nuc", "wbe-*");
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining("wbe-*: no agent is selected by it")]);
  });

  test("rename, label, remove", async () => {
    expect(await run("agents", "rename", "old", "new")).toMatchObject({ exitCode: 0, stdout: "" });
    const labeled = await run("agents", "label", "label:role=tv", "ring=2", "role-");
    expect(labeled).toMatchObject({ exitCode: 0, stdout: "new: ring=2 role=tv\nnuc: ring=2 role=tv\n" });
    expect((await run("agents", "new")).stdout).toMatch(/LABELS\n.* ring=2 role=tv\n/);
    expect(await run("agents", "remove", "new", "web-2")).toMatchObject({ exitCode: 0, stdout: "new\nweb-2\n" });
    expect(await namesOf()).toEqual(["nuc", "web-1"]);
  });

  test.each([
    [["agents", "remove"], "AGENT or --admitted-by is missing"],
    [["agents", "remove", "a b"], "selects no agents"],
    [["agents", "rename", "nuc"], "NEW is missing"],
    [["agents", "rename", "nuc", "a b"], "is no agent name"],
    [["agents", "label", "nuc"], "KEY=VALUE|KEY- is missing"],
    [["agents", "label", "nuc", "role"], "it must be KEY=VALUE or KEY-"],
    [["agents", "label", "nuc", "a=1", "a-"], "a label is named twice"],
    [["agent", "--name", "nuc", "--label", "role"], "it must be KEY=VALUE"],
    [["agent", "--name", "nuc", "--label", "a=1", "--label", "a=2"], "a label is given twice"],
    [["agents", "approve", "nuc"], "--fingerprint is missing"],
    [["agents", "reject", "nuc", "--fingerprint", "SHA256:x"], "a fingerprint is SHA256: and 43"],
    [["agent", "rotate-key"], "--name is missing"],
    [["token", "create", "--kind", "push", "--agent", "nuc"], "are for --kind agent"],
    [["token", "create", "--kind", "agent", "--uses", "0"], "--uses is a whole number"],
  ])("%p is a usage error", async (words, text) => {
    const { exitCode, stdout, stderr } = await runCommand(words);
    expect([exitCode, stdout, stderr]).toEqual([2, "", expect.stringContaining(text)]);
  });
});

test("a key that asks for a name is listed, and approved or rejected by its fingerprint", async () => {
  const ask = async () => {
    const identity = createAgentIdentity("nuc");
    const agent = openScriptedAgent(server.coordinator, identity);
    await agent.login({ enrolmentToken: (await server.createToken("agent")).token });
    await agent.disconnect();
    return formatKeyFingerprint(publicKeyFromSeed(identity.seed));
  };
  const first = await ask();
  expect((await run("agents", "pending")).stdout).toContain(first);
  const wrong = await run("agents", "approve", "nuc", "--fingerprint", `SHA256:${"A".repeat(43)}`);
  expect([wrong.exitCode, wrong.stderr]).toEqual([1, expect.stringContaining(`the one that asks is ${first}`)]);
  expect(await run("agents", "reject", "nuc", "--fingerprint", first)).toMatchObject({ exitCode: 0 });
  expect(await run("agents", "pending")).toMatchObject({ exitCode: 0, stdout: "" });
  const second = await ask();
  expect(await run("agents", "approve", "nuc", "--fingerprint", second)).toMatchObject({ exitCode: 0 });
  const { stdout } = await run("agents", "nuc", "--json");
  expect(agentListSchema.parse(JSON.parse(stdout)).agents).toMatchObject([{ keyFingerprint: second }]);
});

test("a cache's key is shown with its fingerprint, and rotated", async () => {
  const before = (await run("cache", "show", "default")).stdout;
  const [, oldKey = ""] = /public key: +(\S+)/.exec(before) ?? [];
  expect(before).toMatch(/fingerprint: SHA256:/);
  const rotated = await run("cache", "rotate-key", "default");
  expect(rotated.stdout).toContain(`before:      ${oldKey} (until `);
  expect((await run("cache", "show", "default")).stdout).toBe(rotated.stdout);
});

test("a token says what it is bound to", async () => {
  const created = await run("token", "create", "--kind", "agent", "--agent", "nuc", "--uses", "1", "--json");
  const { id } = z.object({ id: z.string() }).parse(JSON.parse(created.stdout));
  const { tokens } = tokenListSchema.parse(JSON.parse((await run("token", "list", "--json")).stdout));
  expect(tokens.find((token) => token.id === id)).toMatchObject({ agent: "nuc", usesMax: 1, uses: 0 });
  expect((await run("token", "list")).stdout).toContain("nuc (0 of 1)");
  expect((await run("agents", "--admitted-by", id)).stdout).toBe("");
});
