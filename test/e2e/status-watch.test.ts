/** `status --watch` with the compiled binary: plain lines, JSON, a terminal, and through a restart of the coordinator. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { BINARY, createFleet, type Fleet } from "../support/fleet.ts";
import { spawnProcess } from "../support/processes.ts";

let fleet: Fleet;
let version = 0;

beforeAll(async () => {
  fleet = await createFleet("status-watch");
  await fleet.startAgent(await fleet.addDevice("laptop"), { profile: "hello" });
}, 60_000);
afterAll(async () => await fleet[Symbol.asyncDispose](), 30_000);

async function deploy(): Promise<void> {
  version += 1;
  const profile = await fleet.builder.build("profile", { name: "hello", version: String(version) });
  await fleet.expectRun(["push", profile]);
  await fleet.expectRun(["activate", `laptop=${profile}`]);
}

test("into a pipe: the table once, then a line an event, also after a restart", async () => {
  await using watch = await fleet.start(["status", "--watch"]);
  await watch.waitForLine(/^laptop +online/, { timeoutMs: 30_000 });
  await deploy();
  await watch.waitForLine(/default: laptop succeeded/, { timeoutMs: 30_000 });
  await fleet.coordinator.killHard();
  await watch.waitForLine(/lost the coordinator: trying again/, { timeoutMs: 30_000 });
  await fleet.coordinator.restart();
  const from = watch.lines.length;
  // Also where nothing has happened meanwhile: an agent that is back at once is no event.
  await watch.waitForLine(/the coordinator is there again/, { timeoutMs: 60_000, from });
  await deploy();
  await watch.waitForLine(/default: laptop succeeded/, { timeoutMs: 30_000, from });
});

test("as JSON: an object a line, whenever something has changed", async () => {
  await using watch = await fleet.start(["status", "--watch", "--json"]);
  const [first] = await watch.waitForLine(/^\{.*\}$/, { timeoutMs: 30_000 });
  expect(JSON.parse(first)).toMatchObject({ agents: { online: 1 }, agentList: [{ name: "laptop" }] });
  await deploy();
  await watch.waitForLine(new RegExp(`"state":"succeeded","storePath":"[^"]*hello-profile-${version}"`), {
    timeoutMs: 30_000,
  });
});

test("at a terminal: painted anew", async () => {
  const token = await fleet.makeToken("read");
  const line = `stty cols 150 rows 40; exec ${BINARY} status --watch`;
  const env = { NIXDEPLOY_URL: fleet.coordinator.url, NIXDEPLOY_TOKEN: token, TERM: "xterm" };
  await using watch = spawnProcess(["script", "-qefc", line, "/dev/null"], { env });
  await watch.waitForLine(/laptop +online .*succeeded hello-profile-\d/, { timeoutMs: 30_000 });
  await deploy();
  await watch.waitForLine(new RegExp(`laptop +online .*succeeded hello-profile-${version}`), { timeoutMs: 30_000 });
  expect(watch.output()).toContain("\u001b[");
});
