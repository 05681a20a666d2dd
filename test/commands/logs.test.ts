/** `logs` says where a rollout came from: description, CI facts, token; and nothing where nothing is known. */
import { expect, test } from "bun:test";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { describeStart } from "../../src/client/origin.ts";
import { EXAMPLE_HASH_PART } from "../support/deployment-example.ts";
import { FAKE_TOKEN, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { runCommand } from "../support/run-command.ts";

const SYSTEM = `/nix/store/${EXAMPLE_HASH_PART}-system`;
const ROLLOUT = rolloutSchema.parse({
  ...{ id: "rrrrrrrrrrrrrrrr", workspace: "default", createdAt: "2026-01-01T00:00:00Z", description: null },
  ...{ url: "https://x/r", deployments: [] },
});
const ORIGIN = { repository: "acme/fleet", commit: "0123456789abcdef", ref: "refs/heads/main", actor: "ada" };

test.each([
  [{}, ""],
  [{ description: "new kernel" }, "rollout rrrrrrrrrrrrrrrr: new kernel"],
  [
    { description: "new kernel", origin: ORIGIN },
    "rollout rrrrrrrrrrrrrrrr: new kernel; started by ada, acme/fleet@0123456789ab (refs/heads/main)",
  ],
  [
    { startedBy: { token: "0123456789abcdef", description: "laptop" } },
    'rollout rrrrrrrrrrrrrrrr: started by token "laptop"',
  ],
  [{ startedBy: { token: "0123456789abcdef", description: "" } }, ""],
] as const)("of %p", (facts, text) => {
  expect(describeStart(rolloutSchema.parse({ ...ROLLOUT, ...facts }))).toBe(text);
});

test("status shows the latest", async () => {
  await using fake = startFakeCoordinator();
  fake.addAgent("nuc");
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  const facts = { GITHUB_ACTOR: "ada" };
  await runCommand(["activate", "--async", "--description", "new kernel", `nuc=${SYSTEM}`], {
    env: { ...env, ...facts },
  });
  const { stdout } = await runCommand(["status"], { env });
  const id = fake.rollouts[0]?.id;
  expect(stdout).toContain(`latest:      2026-01-01T00:00:00.000Z rollout ${id}: new kernel; started by ada\n`);
});

test("before the log, for people; not in JSON", async () => {
  await using fake = startFakeCoordinator();
  fake.addAgent("nuc");
  const env = { NIXDEPLOY_URL: fake.url, NIXDEPLOY_TOKEN: FAKE_TOKEN };
  const gitlab = { ...env, GITLAB_CI: "true", CI_PROJECT_PATH: "acme/fleet", GITLAB_USER_LOGIN: "ada" };
  await runCommand(["activate", "--async", `nuc=${SYSTEM}`], { env: gitlab });
  const { stderr } = await runCommand(["logs", "nuc"], { env });
  expect(stderr).toBe(`rollout ${fake.rollouts[0]?.id}: started by ada, acme/fleet\n`);
  expect((await runCommand(["logs", "nuc", "--json"], { env })).stderr).toBe("");
});
