/**
 * `nixdeploy copy --switch` without the engine, and whoever dies in the midst: we, the ssh session, or the script over there
 * that holds the way back. Each time the machine ends as a whole, with what was proved or with what was before.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Builder, createBuilder, type FixtureOptions } from "../support/builder.ts";
import { createDevice, type Device, SYSTEM_PROFILE } from "../support/device.ts";
import { BINARY } from "../support/fleet.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import { type SshServer, startSshServer } from "../support/ssh-server.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

let stack: AsyncDisposableStack;
let builder: Builder;
let nuc: Device;
let ssh: SshServer;
let holds: Holds;
let before: string;
let count = 0;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const directory = stack.use(await createTemporaryDirectory("copy-deaths")).path;
  builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  nuc = stack.use(await createDevice({ name: "nuc", directory: join(directory, "nuc") }));
  await nuc.install(builder, await build());
  await nuc.startDaemon();
  holds = createHolds(nuc);
  ssh = stack.use(await startSshServer(nuc));
}, 120_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);
beforeEach(async () => {
  before = String(await nuc.link("/run/current-system"));
});

type Faults = NonNullable<FixtureOptions["system"]["faults"]>;
const build = (faults: Faults = []) => {
  count += 1;
  return builder.build("system", { name: "nuc", version: String(count), units: [{ name: "web.service" }], faults });
};
/** Of the new system: it waits there, and then it has much to say. */
const heldAt = (stage: "activate" | "boot-loader", action: "test" | "boot", name: string): Faults => [
  { stage, kind: "hold", argument: name, actions: [action] },
  { stage, kind: "print-lines", argument: 3_000, actions: [action] },
];

const start = (system: string, ...flags: readonly string[]) =>
  builder.spawn([BINARY, "copy", "--no-compress", "--to", ssh.address("root"), system, "--switch", ...flags], {
    env: ssh.client,
  });
const sides = async () => ({
  profile: await nuc.link(SYSTEM_PROFILE),
  running: await nuc.link("/run/current-system"),
  boots: await nuc.bootDefault(),
});
const all = (system: string) => ({ profile: system, running: system, boots: system });

async function becomes(system: string, describe: () => string): Promise<void> {
  const look = async () => Bun.deepEquals(await sides(), all(system)) && (await keepers()).length === 0;
  await waitFor(`${system} to be all there is`, look, { timeoutMs: 60_000, describe });
}

/** Their process ids, as this test sees them. */
async function processes(pattern: RegExp): Promise<readonly number[]> {
  const found: number[] = [];
  for (const id of nuc.processes()) {
    const line = await Bun.file(`/proc/${id}/cmdline`)
      .text()
      .catch(() => "");
    if (pattern.test(line)) found.push(id);
  }
  return found;
}
const keepers = () => processes(/^sh\0\/run\/nixdeploy-copy\.\w+\/keeper\0/);
const kill = (ids: readonly number[]) => {
  expect(ids).not.toEqual([]);
  for (const id of ids) process.kill(id, "SIGKILL");
};

test("we and our session die while it is made the default: it becomes the default", async () => {
  const system = await build(heldAt("boot-loader", "boot", "commit"));
  await holds.set("commit");
  const command = start(system);
  await holds.reached("commit", command.output);
  command.kill("SIGKILL");
  await command.exited;
  kill(await processes(/^sshd: root/));
  await holds.release("commit");
  await becomes(system, command.output);
}, 90_000);

test("we and our session die while it is made live: nobody proves it, and it goes back", async () => {
  const system = await build(heldAt("activate", "test", "live"));
  await holds.set("live");
  const command = start(system, "--confirm-window", "3s");
  await holds.reached("live", command.output);
  command.kill("SIGKILL");
  await command.exited;
  kill(await processes(/^sshd: root/));
  await holds.release("live");
  const isLive = async () => (await sides()).running === system;
  await waitFor("it to be live", isLive, { timeoutMs: 30_000, describe: command.output });
  await becomes(before, command.output);
}, 90_000);

test("an interrupt says that it goes on there, and it goes back", async () => {
  const system = await build(heldAt("activate", "test", "interrupted"));
  await holds.set("interrupted");
  const command = start(system, "--confirm-window", "1s");
  await holds.reached("interrupted", command.output);
  command.kill("SIGINT");
  expect(await command.exited).toMatchObject({ exitCode: 130 });
  expect(command.output()).toContain(
    `${ssh.name("root")}: the activation of ${system} goes on there without this command; what nobody proves goes back`,
  );
  await holds.release("interrupted");
  await waitFor("the keeper to end", async () => (await keepers()).length === 0, { timeoutMs: 30_000 });
  expect(await sides()).toEqual(all(before));
}, 90_000);

test("the script over there dies while it is made live: another one goes back", async () => {
  const system = await build(heldAt("activate", "test", "half"));
  await holds.set("half");
  const command = start(system);
  await holds.reached("half", command.output);
  kill(await keepers());
  // What it began goes on for a while, and holds the lock.
  await waitFor("another keeper", async () => (await keepers()).length === 1, { timeoutMs: 30_000 });
  await holds.release("half");
  expect(await command.exited).toMatchObject({ exitCode: 1 });
  expect(command.output()).toContain("it ended rolled-back: switch-to-configuration test was not heard of any more");
  expect(await sides()).toEqual(all(before));
}, 90_000);

test("the script over there dies while it is made the default: another one goes on", async () => {
  const system = await build(heldAt("boot-loader", "boot", "half-default"));
  await holds.set("half-default");
  const command = start(system);
  await holds.reached("half-default", command.output);
  kill(await keepers());
  await waitFor("another keeper", async () => (await keepers()).length === 1, { timeoutMs: 30_000 });
  await holds.release("half-default");
  expect(await command.exited).toMatchObject({ exitCode: 0 });
  expect(await sides()).toEqual(all(system));
}, 90_000);

test("what is gone back to is kept from the garbage collector, and nothing is left behind", async () => {
  // Live, and in no profile: a collection would take it.
  const tried = await build();
  const trying = builder.spawn([BINARY, "copy", "--no-compress", "--to", ssh.address("root"), tried, "--test"], {
    env: ssh.client,
  });
  expect(await trying.exited).toMatchObject({ exitCode: 0 });
  const system = await build(heldAt("activate", "test", "collect"));
  await holds.set("collect");
  const command = start(system, "--confirm-window", "1s");
  await holds.reached("collect", command.output);
  const roots = await nuc.run(["nix-store", "--query", "--roots", tried]);
  expect(roots).toMatch(/^\/run\/nixdeploy-copy\.\w+\/root-/m);
  command.kill("SIGINT");
  await command.exited;
  await holds.release("collect");
  await waitFor("the way back", async () => (await keepers()).length === 0, { timeoutMs: 30_000 });
  expect((await sides()).running).toBe(tried);

  const next = start(await build());
  expect(await next.exited).toMatchObject({ exitCode: 0 });
  // Those of whom nobody heard the end stay until the next boot, or for a week.
  const left = (await readdir(nuc.hostPath("/run"))).filter((name) => name.startsWith("nixdeploy-copy."));
  const ended = await Promise.all(left.map((name) => Bun.file(nuc.hostPath(`/run/${name}/end`)).text()));
  expect(ended.every((text) => text === "undone\n" || text === "default\n")).toBe(true);
}, 90_000);
