/**
 * What `nixdeploy copy` does on a host without the engine, under systemd: the script that holds the way back is a unit, which
 * neither the end of the login nor its own death ends. The scripts alone; how ssh brings them there is copy-systems.test.ts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { BEGIN_SCRIPT, KEEPER, VISIT_SCRIPT } from "../../src/client/copy/plain-scripts.ts";
import { createBuilder } from "../support/builder.ts";
import { createDevice, SYSTEM_PROFILE } from "../support/device.ts";
import { createHolds, type Holds } from "../support/holds.ts";
import { createSystemdBox, type SystemdBox } from "../support/systemd-box.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

const DAEMON = { name: "nix-daemon.service", version: "any", service: ["ExecStart=/usr/bin/nix-daemon"] };
const LOGIN_MAX_MS = 60_000;

let stack: AsyncDisposableStack;
let box: SystemdBox;
let holds: Holds;
let old: string;
let system: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const directory = stack.use(await createTemporaryDirectory("systemd-copy")).path;
  await using builder = await createBuilder({ directory: join(directory, "builder") });
  const hold = { kind: "hold", argument: "live", stage: "activate", actions: ["test"] } as const;
  const build = (version: string, faults: readonly (typeof hold)[]) =>
    builder.build("system", { name: "box", version, serviceManager: "systemd", units: [DAEMON], faults });
  [old, system] = [await build("1", []), await build("2", [hold])];
  const device = await createDevice({ name: "box", directory: join(directory, "box") });
  for (const path of [system, old]) await device.importFrom(builder, path);
  await device.run(["nix-env", "--profile", SYSTEM_PROFILE, "--set", old]);
  await device.run([`${old}/bin/switch-to-configuration`, "boot"]);
  await device[Symbol.asyncDispose]();
  box = stack.use(await createSystemdBox({ name: "box", directory: join(directory, "box"), files: {} }));
  await box.boot();
  holds = createHolds(box);
}, 180_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);

const sides = async () => ({
  profile: await box.run(["readlink", "--canonicalize", SYSTEM_PROFILE]),
  running: await box.run(["readlink", "--canonicalize", "/run/current-system"]),
  boots: await box.bootDefault(),
});
const all = (path: string) => ({ profile: path, running: path, boots: path });
const units = async () =>
  (await box.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "nixdeploy-copy-*.service"])).split(
    /\s+/,
  );

/** As a login that dies when the new system is being made live. */
async function beginAndDie(): Promise<{ readonly folder: string; readonly unit: string }> {
  await holds.set("live");
  const words = ["switch", system, SYSTEM_PROFILE, "60", "60", "rollback", KEEPER];
  // A session of its own, all of which is killed.
  const begin = ["setsid", "--wait", "sh", "-c", `echo $$ > /run/login; ${BEGIN_SCRIPT}`, "nixdeploy", ...words];
  const login = box.exec(begin, { timeoutMs: LOGIN_MAX_MS });
  const reached = holds.reached("live");
  await Promise.race([reached, login.then((ended) => Promise.reject(new Error(ended.stderr)))]);
  const [unit = ""] = await units();
  expect(await box.unit(unit, "ActiveState")).toBe("active");
  await box.run(["sh", "-c", 'pkill -KILL -s "$(cat /run/login)"']);
  const [, folder = ""] = /^nixdeploy-run=(\S+)$/m.exec((await login).stdout) ?? [];
  expect(`${folder.slice("/run/".length).replaceAll(".", "-")}.service`).toBe(unit);
  return { folder, unit };
}

test("it goes back when its login and it itself are killed", async () => {
  const { unit } = await beginAndDie();
  await box.run(["systemctl", "kill", "--kill-who=main", "--signal=KILL", unit]);
  await holds.release("live");
  const isBack = async () => (await units())[0] === "" && Bun.deepEquals(await sides(), all(old));
  await waitFor("the old system", isBack, { timeoutMs: 60_000 });
}, 120_000);

test("it makes the default what a visit proved, without the login in which it began", async () => {
  const { folder } = await beginAndDie();
  await holds.release("live");
  const visit = () => box.run(["sh", "-c", VISIT_SCRIPT, "nixdeploy", folder]);
  const isProved = async () => (await visit()).includes("nixdeploy-visit=confirmed");
  await waitFor("a visit to count", isProved, { timeoutMs: 60_000 });
  const isOver = async () => (await units())[0] === "" && Bun.deepEquals(await sides(), all(system));
  await waitFor("the new system to be the default", isOver, { timeoutMs: 60_000 });
  expect(await visit()).toContain("nixdeploy-code=0\nnixdeploy-commit=0\nnixdeploy-end=default\n");
}, 120_000);
