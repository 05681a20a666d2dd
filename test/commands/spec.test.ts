/** `spec`: a spec on stdout and nothing else there, what is wrong on stderr; and what one says. */
import { expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { storePathFor } from "../support/tiny-path.ts";

const NUC = storePathFor("nuc");

test("from files and standard input; `spec show` says what it says", async () => {
  await using directory = await createTemporaryDirectory("spec");
  const jobs = directory.join("jobs.json");
  await writeFile(jobs, `${JSON.stringify({ attr: "nuc", attrPath: ["nuc"], outputs: { out: NUC } })}\n`);
  const made = await runCommand(["spec", "--from-eval-jobs", jobs, "--from-eval-jobs", "-"], { stdin: `tv=${NUC}\n` });
  expect([made.exitCode, made.stderr]).toEqual([0, "a spec for 2 agents\n"]);
  expect(JSON.parse(made.stdout)).toEqual({ agents: { nuc: NUC, tv: NUC } });
  const spec = directory.join("spec.json");
  const check = { name: "ssh", kind: "tcp", port: 22 };
  const ours = { nixdeploy: { healthChecks: [check] }, rollbackScript: { "x86_64-linux": NUC } };
  await writeFile(spec, JSON.stringify({ ...JSON.parse(made.stdout), ...ours }));
  const shown = await runCommand(["spec", "show", spec]);
  expect(shown.exitCode).toBe(0);
  expect(shown.stdout.replaceAll(/ +/g, " ")).toBe(
    `AGENT PATH HEALTH CHECKS\nnuc ${NUC} ssh\ntv ${NUC} ssh\n\nSYSTEM SCRIPT\nx86_64-linux ${NUC}\n`,
  );
  const json: unknown = JSON.parse((await runCommand(["spec", "show", spec, "--json"])).stdout);
  expect(json).toMatchObject({ agents: { nuc: NUC }, healthChecks: [check], agentHealthChecks: {} });
});

test.each([
  ["no file", [], "", 2, "no --from-eval-jobs FILE is given"],
  ["a file that is not there", ["--from-eval-jobs", "/nowhere/jobs"], "", 2, "cannot read /nowhere/jobs"],
  ["a directory", ["--from-eval-jobs", "/"], "", 2, "cannot read /"],
  ["what has no end", ["--from-eval-jobs", "/dev/zero"], "", 1, "cannot read /dev/zero: it is larger than"],
  [
    "an evaluation that failed",
    ["--from-eval-jobs", "-"],
    '{"attr":"nuc","error":"no"}',
    1,
    '"nuc" did not evaluate: "no"',
  ],
  [
    "a prefix that nothing has",
    ["--from-eval-jobs", "-", "--prefix", "a.b"],
    `{"attr":"nuc"}`,
    1,
    "no job of an agent",
  ],
] as const)("%s", async (_what, words, stdin, exitCode, text) => {
  const result = await runCommand(["spec", ...words], { stdin });
  expect([result.exitCode, result.stdout]).toEqual([exitCode, ""]);
  expect(result.stderr).toContain(text);
});

test("what is no spec is refused with its faults", async () => {
  await using directory = await createTemporaryDirectory("spec");
  await writeFile(directory.join("spec.json"), '{"agents":{"a/b":"x"}}');
  const { exitCode, stderr } = await runCommand(["spec", "show", directory.join("spec.json")]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain("  - ");
});
