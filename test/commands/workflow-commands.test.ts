/** No text from a device becomes a workflow command: held against a runner that reads as GitHub's does. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { z } from "zod";
import {
  formatAnnotation,
  formatGroup,
  formatOutputs,
  neutralizeWorkflowCommands,
} from "../../src/commands/terminal/workflow-commands.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { waitFor } from "../support/wait-for.ts";
import { runWorkflowLog } from "../support/workflow-runner.ts";

const ATTACKS = [
  "::set-output name=url::evil",
  "  ::add-mask::secret",
  "\t::error::no",
  "\u00a0::stop-commands::x",
  "\u0085::add-path::/tmp",
  "##[add-mask]secret",
  "nuc | ##[set-env name=PATH]/tmp",
  "harmless\r::set-env name=PATH::/tmp",
  "harmless\n::endgroup::",
  "\u001b[0m::debug::x",
];

describe("printed text", () => {
  test.each(ATTACKS)("%j commands nothing", (text) => {
    expect(runWorkflowLog(`${neutralizeWorkflowCommands(`${text}\n`)}`).commands).toEqual([]);
  });

  test("most of them would, were they printed as they are: the runner of this test can see it", () => {
    const seen = ATTACKS.filter((text) => runWorkflowLog(`${text}\n`).commands.length > 0);
    expect(seen).toHaveLength(ATTACKS.length - 1);
  });

  test("any text commands nothing, and is left alone where it holds nothing of the kind", () => {
    const piece = fc.constantFrom("::", "##[", ":", "#", "[", " ", "\n", "\r", "\t", "add-mask", "::x::", "\u2028");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        expect(runWorkflowLog(neutralizeWorkflowCommands(pieces.join(""))).commands).toEqual([]);
      }),
      { numRuns: 2_000 },
    );
    const harmless = "nuc: failed: a::b, https://x/, [::1]:80 # [x]";
    expect(neutralizeWorkflowCommands(harmless)).toBe(harmless);
  });

  test("JSON keeps its value", () => {
    const value = { text: "##[add-mask]x", list: ["::error::y"] };
    const text = JSON.stringify(value, null, 2);
    expect(JSON.parse(neutralizeWorkflowCommands(text))).toEqual(value);
    expect(runWorkflowLog(neutralizeWorkflowCommands(text)).commands).toEqual([]);
  });
});

describe("our own commands", () => {
  test("a group folds its lines and nothing in it is a command, not even one that ends it", () => {
    const token = "0123456789abcdef";
    const lines = [...ATTACKS, "::endgroup::", "last"];
    const { commands, text } = runWorkflowLog(formatGroup({ title: "nuc\n::x::", lines, token }));
    expect(commands.map(({ name, data }) => [name, data])).toEqual([
      ["group", "nuc\n::x::"],
      ["stop-commands", token],
      [token, ""],
      ["endgroup", ""],
    ]);
    expect(text.at(-1)).toBe("last");
  });

  test("an annotation is one command, whatever is in it", () => {
    const title = "nuc: a,b\n::set-output name=x::y";
    const text = "50 %\nline two, ::error::";
    const { commands } = runWorkflowLog(formatAnnotation({ level: "error", title, text }));
    expect(commands).toEqual([{ name: "error", properties: { title }, data: text }]);
  });

  test("outputs are taken as they are", () => {
    const text = formatOutputs({ url: "https://x/1", list: "a\nb=c<<EOF" }, "end-1");
    expect(text).toBe("url<<end-1\nhttps://x/1\nend-1\nlist<<end-1\na\nb=c<<EOF\nend-1\n");
  });
});

describe("the program itself, in GitHub Actions", () => {
  const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;
  const START = join(import.meta.dir, "../../src/start.ts");

  async function run(fake: FakeCoordinator, ...words: readonly string[]) {
    const child = Bun.spawn([process.execPath, START, ...words], {
      env: { ...process.env, NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN, GITHUB_ACTIONS: "true" },
      ...{ stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { stdout, stderr, exitCode: child.exitCode };
  }

  test("whatever command prints it, nothing of a device commands the runner", async () => {
    await using fake = startFakeCoordinator();
    fake.addAgent("nuc");
    await run(fake, "activate", "--async", `nuc=${SYSTEM}`);
    fake.appendLog("nuc", ...ATTACKS);
    fake.setDeployment("nuc", { state: "failed", reason: ATTACKS.join(" ") });
    const shown = await run(fake, "logs", "nuc");
    expect(shown.stdout).toContain("set-output name=url::evil");
    const json = await run(fake, "logs", "nuc", "--json");
    const texts = json.stdout.trimEnd().split("\n");
    expect(texts.map((line) => z.object({ text: z.string() }).parse(JSON.parse(line)).text)).toEqual([...ATTACKS]);
    for (const { stdout, stderr } of [shown, json]) {
      expect([...runWorkflowLog(stdout).commands, ...runWorkflowLog(stderr).commands]).toEqual([]);
    }
    const follow = run(fake, "activate", `nuc=${SYSTEM}`);
    await waitFor("it to follow", () => fake.followers > 0, { timeoutMs: 30_000 });
    fake.appendLog("nuc", ...ATTACKS);
    fake.setDeployment("nuc", { state: "failed", reason: ATTACKS.join(" ") });
    const { stdout, stderr, exitCode } = await follow;
    expect([exitCode, runWorkflowLog(stdout).commands]).toEqual([1, []]);
    const names = runWorkflowLog(stderr).commands.map(({ name }) => name);
    expect(names).toEqual(["group", "stop-commands", expect.stringMatching(/^[0-9a-f]{32}$/), "endgroup", "error"]);
  }, 60_000);
});
