/**
 * Health checks with the compiled program: of the spec and of the device's own configuration, on a NixOS system whose web
 * server listens, or does not, and on a plain profile. What fails them goes back; what cannot be a check is refused.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type ActivationProbe, createActivationProbe } from "../support/activation-probe.ts";
import type { FixtureUnit } from "../support/builder.ts";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { findFreePorts } from "../support/free-port.ts";
import type { SpawnedProcess } from "../support/processes.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { waitFor } from "../support/wait-for.ts";

const APP = "app.service";
const WEB_SERVER = join(import.meta.dir, "../support/web-server.ts");
const QUICK = { periodSeconds: 0.2, timeoutSeconds: 5 };
const OWN_FILE = "/var/lib/nixdeploy/own-checks.json";

let fleet: Fleet;
let nuc: Device;
let probe: ActivationProbe;
let webPort: number;
let before: string;
let versions = 0;

beforeAll(async () => {
  fleet = await createFleet("health");
  [webPort = 0] = await findFreePorts(1);
  before = await fleet.builder.build("system", systemOf("exec sleep infinity"));
  nuc = await fleet.addDevice("nuc", before);
  probe = createActivationProbe(nuc, { agent: "nuc", unit: APP });
  await writeOwn([]);
  await fleet.startAgent(nuc, { healthChecksFile: OWN_FILE });
}, 60_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

const serveWeb = (status: number) => `exec ${process.execPath} ${WEB_SERVER} ${webPort} ${status}`;
const web = (changes: object = {}) => ({
  ...{ name: "web", kind: "http", url: `http://localhost:${webPort}/healthz`, ...QUICK },
  ...changes,
});
const ssh = (changes: object = {}) => ({ name: "port", kind: "tcp", port: webPort, ...QUICK, ...changes });

/** A system whose web server is this shell text. */
function systemOf(webExec: string) {
  versions += 1;
  const units: FixtureUnit[] = [{ name: APP }, { name: "web.service", exec: webExec }];
  return { name: "nuc", version: `${versions}`, units };
}

async function writeOwn(healthChecks: readonly object[] | string): Promise<void> {
  const text = typeof healthChecks === "string" ? healthChecks : JSON.stringify({ healthChecks });
  await mkdir(dirname(nuc.hostPath(OWN_FILE)), { recursive: true });
  await writeFile(nuc.hostPath(OWN_FILE), text);
}

const buildScript = async (text: string, executable = true) => {
  const script = await fleet.builder.build("script", { name: "check", text, executable });
  await fleet.expectRun(["push", script]);
  return script;
};

/** `activate` of a spec with these checks. */
async function start(path: string, nixdeploy: object, flags: readonly string[] = [], name = "nuc") {
  await fleet.expectRun(["push", path]);
  versions += 1;
  const spec = join(fleet.directory, `spec-${versions}.json`);
  await writeFile(spec, JSON.stringify({ agents: { [name]: path }, nixdeploy }));
  return await fleet.start(["activate", spec, "--json", ...flags]);
}

async function endOf(activate: SpawnedProcess) {
  await activate.exited;
  const text = activate.lines.filter(({ stream }) => stream === "stdout").map((line) => line.text);
  if (text.length === 0) throw new Error(activate.output());
  const [deployment] = rolloutResultSchema.parse(JSON.parse(text.join("\n"))).deployments;
  if (deployment === undefined) throw new Error(activate.output());
  return { ...deployment, log: activate.output() };
}

async function deploy(webExec: string, nixdeploy: object, flags: readonly string[] = []) {
  const system = await fleet.builder.build("system", systemOf(webExec));
  return { system, ...(await endOf(await start(system, nixdeploy, flags))) };
}

async function expectRuns(system: string, version?: string): Promise<void> {
  expect(await probe.sides()).toMatchObject({ permanent: system, running: system, ...(version && { unit: version }) });
}

describe("a system", () => {
  test("that passes all checks, together and after some time, succeeds; the log says how", async () => {
    const script = await buildScript(
      '#!/bin/sh\n[ "$1" = "--deep  check" ] || exit 9\necho "new=$NIXDEPLOY_NEW_PATH old=$NIXDEPLOY_OLD_PATH"\nenv\n',
    );
    const smoke = { name: "smoke", kind: "command", command: [script, "--deep  check"], attempts: 1 };
    const nixdeploy = { healthChecks: [web()], agents: { nuc: { healthChecks: [ssh(), smoke] } } };
    const { state, reason, system, log } = await deploy(`sleep 1; ${serveWeb(204)}`, nixdeploy);
    expect([state, reason]).toEqual(["succeeded", `${system} is live.`]);
    for (const line of [
      `new=${system} old=${before}`,
      "health check smoke passed",
      "health check web failed: cannot reach",
      "health check web passed",
      "health check port passed",
    ]) {
      expect(log).toContain(line);
    }
    // No secret: the agent has its token in its environment.
    expect(log).not.toMatch(/nd_agent_|TOKEN/);
    await expectRuns(system);
    before = system;
  }, 60_000);

  test("whose web port never opens is rolled back, with the reason", async () => {
    const started = deploy("exec sleep infinity", { healthChecks: [web(), ssh()] }, ["--confirm-window", "3s"]);
    const { id, state, reason, log } = await started;
    expect(state).toBe("rolled-back");
    expect(reason).toContain("The health checks did not pass within the confirm window of 3 s: web (");
    expect(reason).toContain("the connection was refused; port (");
    expect(log).toContain("health check port failed: cannot reach 127.0.0.1 port");
    await expectRuns(before);
    await waitFor("nothing to be left over", async () => (await probe.leftovers(id)).length === 0);
  }, 60_000);

  test("that answers with the wrong status goes back as soon as its attempts are used up", async () => {
    const { state, reason } = await deploy(serveWeb(503), { healthChecks: [web({ attempts: 20 })] }, [
      ...["--confirm-window", "10m"],
    ]);
    expect(state).toBe("rolled-back");
    const url = `http://localhost:${webPort}/healthz`;
    expect(reason).toStartWith(
      `The health check web failed (20 tries): ${url} answers with status 503 instead of 200 to 299; the machine is back`,
    );
    await expectRuns(before);
  }, 60_000);

  test("in mode test is judged too; in mode dry-activate nothing runs that could be", async () => {
    const failing = { healthChecks: [web({ attempts: 5 })] };
    expect(await deploy("exec sleep infinity", failing, ["--mode", "test"])).toMatchObject({ state: "rolled-back" });
    await expectRuns(before);
    const generation = await nuc.run(["readlink", "/nix/var/nix/profiles/system"]);
    const dry = await deploy("exec sleep infinity", failing, ["--mode", "dry-activate"]);
    const reason = `${dry.system} was only asked what it would do; nothing was changed.`;
    expect([dry.state, dry.reason]).toEqual(["succeeded", reason]);
    // What it would do is part of the result.
    expect(dry.unitChanges).toMatchObject({ stop: [APP, "web.service"], start: [APP, "web.service"], restart: [] });
    expect(await nuc.run(["readlink", "/nix/var/nix/profiles/system"])).toBe(generation);
    await expectRuns(before);

    const good = await deploy(serveWeb(200), { healthChecks: [web()] }, ["--mode", "test"]);
    expect([good.state, good.unitChanges]).toEqual(["succeeded", null]);
    expect(await nuc.run(["readlink", "/nix/var/nix/profiles/system"])).toBe(generation);
    // Live, and nothing permanent: neither the profile's link nor the boot entry has moved.
    expect(await probe.sides()).toMatchObject({ permanent: before, running: good.system });
    await fleet.expectRun(["push", before]);
    await fleet.expectRun(["activate", `nuc=${before}`]);
    await expectRuns(before);
  }, 90_000);

  test("whose supervisor is killed while checks are tried is judged by the next one, which stops what ran", async () => {
    const marker = "sleep 4711";
    const script = await buildScript(`#!/bin/sh\necho checking\n[ -e /run/checked ] || exec ${marker}\n`);
    const slow = { name: "slow", kind: "command", command: [script], ...QUICK, timeoutSeconds: 60 };
    const system = await fleet.builder.build("system", systemOf(serveWeb(200)));
    const activate = await start(system, { healthChecks: [slow, web()] }, ["--confirm-window", "60s"]);
    await waitFor("the check to run", () => probe.runs(marker), { timeoutMs: 30_000, describe: activate.output });
    const deadline = await readDeadline();
    await writeFile(nuc.hostPath("/run/checked"), "");
    for (const id of probe.supervisors()) process.kill(id, "SIGKILL");
    const { state, log } = await endOf(activate);
    expect([state, await readDeadline()]).toEqual(["succeeded", null]);
    expect(deadline).toBeGreaterThan(0);
    expect(probe.runs(marker)).toBe(false);
    expect(log.split("checking")).toHaveLength(3);
    before = system;
    await expectRuns(system);
  }, 60_000);
});

describe("a command", () => {
  test("that is no executable file is refused, untouched", async () => {
    const script = await buildScript("#!/bin/sh\n", false);
    const unit = await probe.unitProcess();
    const checks = { healthChecks: [{ name: "smoke", kind: "command", command: [script] }] };
    const { state, reason } = await deploy(serveWeb(200), checks);
    expect(state).toBe("failed");
    expect(reason).toBe(`The program ${script} of the health check smoke is not an executable file.`);
    expect(await probe.unitProcess()).toBe(unit);
    await expectRuns(before);
  }, 60_000);

  test("of another architecture is told at once", async () => {
    const script = await buildScript("\x7fELF\n");
    const checks = { healthChecks: [{ name: "smoke", kind: "command", command: [script] }] };
    const { state, reason } = await deploy(serveWeb(200), checks, ["--confirm-window", "10m"]);
    expect(state).toBe("rolled-back");
    expect(reason).toContain(
      `The health check smoke failed: ${script} could not be started (it is no program that this`,
    );
    await expectRuns(before);
  }, 60_000);

  test("that never ends is stopped, and fails", async () => {
    const script = await buildScript("#!/bin/sh\nsleep 4712 & wait\n");
    const smoke = { name: "smoke", kind: "command", command: [script], timeoutSeconds: 1, attempts: 2 };
    const { state, reason } = await deploy(serveWeb(200), { healthChecks: [smoke] });
    expect(state).toBe("rolled-back");
    expect(reason).toContain(
      `The health check smoke failed (2 tries): ${script} did not end within 1 s and was stopped`,
    );
    expect(probe.runs("sleep 4712")).toBe(false);
    await expectRuns(before);
  }, 60_000);

  test("that was never pushed is refused before anything starts", async () => {
    const absent = "/nix/store/00000000000000000000000000000000-never-pushed";
    const smoke = { name: "smoke", kind: "command", command: [`${absent}/bin/smoke`] };
    const activate = await start(before, { healthChecks: [smoke] });
    expect((await activate.exited).exitCode).toBe(1);
    expect(activate.output()).toContain(`${absent} is not in the cache default: push it first`);
  }, 60_000);
});

test("a check of units is refused, untouched, where systemd does not run", async () => {
  const { state, reason } = await deploy(serveWeb(200), {
    healthChecks: [{ name: "app", kind: "units", units: ["app.service"] }],
  });
  expect(state).toBe("failed");
  expect(reason).toContain("the health check app asks for units, and systemd does not run here");
  await expectRuns(before);
}, 60_000);

describe("the device's own checks", () => {
  test("are read at each activation, and may name any program of the device", async () => {
    await writeOwn([{ name: "own", kind: "command", command: ["/bin/sh", "-c", "test -e /run/well"], attempts: 1 }]);
    const { state, reason } = await deploy(serveWeb(200), {});
    expect(state).toBe("rolled-back");
    expect(reason).toContain("The health check own failed: /bin/sh ended with code 1");
    await expectRuns(before);
    await writeFile(nuc.hostPath("/run/well"), "");
    const good = await deploy(serveWeb(200), {});
    expect(good.state).toBe("succeeded");
    before = good.system;
  }, 60_000);

  test("that cannot be read when it comes to that are a failure, untouched", async () => {
    const unit = await probe.unitProcess();
    await writeOwn('{"healthChecks": [{"name": "x", "kind": "tcp", "prot": 1}]}');
    const wrong = await deploy(serveWeb(200), {});
    expect([wrong.state, wrong.reason]).toEqual([
      "failed",
      expect.stringContaining(`Cannot use the health checks ${OWN_FILE}: the file is not of the right form`),
    ]);
    await rm(nuc.hostPath(OWN_FILE));
    const absent = await deploy(serveWeb(200), {});
    expect([absent.state, absent.reason]).toEqual([
      "failed",
      expect.stringContaining(`Cannot read the health checks ${OWN_FILE}: there is no such file`),
    ]);
    expect(await probe.unitProcess()).toBe(unit);
    await writeOwn([]);
  }, 60_000);
});

test("a plain profile is judged too, by checks for it alone", async () => {
  const build = (version: string) => fleet.builder.build("profile", { name: "tools", version });
  const [first, second] = [await build("1"), await build("2")];
  await fleet.startAgent(nuc, { name: "tools", profile: "tools" });
  const check = (path: string, changes: object = {}) => ({
    agents: {
      tools: { healthChecks: [{ name: "runs", kind: "command", command: [`${path}/bin/tools`], ...changes }] },
    },
  });
  expect((await endOf(await start(first, check(first), [], "tools"))).state).toBe("succeeded");
  // A path below the closure that there is not.
  const absent = await endOf(await start(second, check(`${second}/share`), [], "tools"));
  expect([absent.state, absent.reason]).toEqual(["failed", expect.stringContaining("is not an executable file")]);
  const failing = {
    agents: {
      tools: { healthChecks: [{ name: "port", kind: "tcp", port: webPort, host: "127.0.0.2", attempts: 1 }] },
    },
  };
  const undone = await endOf(await start(second, failing, [], "tools"));
  expect([undone.state, undone.reason]).toEqual([
    "rolled-back",
    expect.stringContaining("The health check port failed"),
  ]);
  expect(await nuc.link("/nix/var/nix/profiles/tools")).toBe(first);
}, 60_000);

/** Of the confirm window, on record; null when nothing is. */
async function readDeadline(): Promise<number | null> {
  const path = nuc.hostPath("/var/lib/nixdeploy/agents/nuc/activation.json");
  const text = await readFile(path, "utf8").catch(() => null);
  return text === null ? null : JSON.parse(text).deadlineUptimeMs;
}
