/**
 * Types other than NixOS, where nothing is killed: first installations, modes, what is refused and how it is said, and
 * several agents at once on one machine. Every deployment but the good ones leaves each link where it was.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../support/device.ts";
import { createFleet, type Fleet } from "../support/fleet.ts";
import { createHolds } from "../support/holds.ts";
import { rolloutResultSchema } from "../support/results.ts";
import { createTypeBench, type TypeBench, type TypeName, type Version } from "../support/type-bench.ts";

/** One for each first installation, and one for each agent that lives long. */
const USERS = ["ada", "bea", "cleo", "dora", "eve"].map((name, index) => ({ name, id: 64_031 + index }));

let fleet: Fleet;
let device: Device;
let homes: TypeBench;
let mac: TypeBench;
/** What ada's home and the "Mac" have. */
let home: Version;
let system: Version;

beforeAll(async () => {
  fleet = await createFleet("types");
  const names = USERS.map(({ name }) => name).join(" ");
  device = await fleet.addDevice("box", { users: USERS, nixConf: `trusted-users = root ${names}\n` });
  homes = benchOf("home-manager", "ada");
  mac = benchOf("darwin");
  home = await install(homes, "home-manager-ada", "1");
  system = await install(mac, "darwin-root", "1");
}, 90_000);

afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
}, 30_000);

const agentOf = (type: TypeName, user?: string) => `${type}-${user ?? "root"}`;

function benchOf(type: TypeName, user?: string): TypeBench {
  const agent = agentOf(type, user);
  return createTypeBench({ type, builder: fleet.builder, device, agent, ...(user === undefined ? {} : { user }) });
}

async function startAgent({ user, profilePath }: TypeBench, name: string, profile = profilePath): Promise<void> {
  await fleet.startAgent(device, { name, profile, ...(user === undefined ? {} : { user }) });
}

/** By hand, as before there was an agent; then the agent. */
async function install(bench: TypeBench, agent: string, version: string): Promise<Version> {
  const built = await bench.build({ version });
  await device.importFrom(fleet.builder, built.path);
  await bench.reset(built);
  await startAgent(bench, agent);
  return built;
}

async function deploy(agent: string, path: string, flags: readonly string[] = []) {
  await fleet.expectRun(["push", path]);
  const result = await fleet.run(["activate", `${agent}=${path}`, "--json", ...flags]);
  const [deployment] = rolloutResultSchema.parse(JSON.parse(result.stdout)).deployments;
  if (deployment === undefined) throw new Error(result.stdout);
  expect(result.exitCode).toBe(deployment.state === "succeeded" ? 0 : 1);
  return deployment;
}

/** A deployment that must not touch anything. */
async function expectRefused(bench: TypeBench, path: string, words: string | RegExp, flags: readonly string[] = []) {
  const before = await bench.sides();
  const { state, reason } = await deploy(agentOf(bench.type, bench.user), path, flags);
  expect([state, reason]).toEqual(["failed", expect.stringMatching(words)]);
  expect(await bench.sides()).toEqual(before);
}

const exactly = (text: string) => new RegExp(RegExp.escape(text));

describe("a first installation of Home Manager", () => {
  test("succeeds; of nothing but its own profile is anything changed", async () => {
    const bench = benchOf("home-manager", "bea");
    await startAgent(bench, "home-manager-bea");
    const version = await bench.build({ version: "first" });
    expect(await deploy("home-manager-bea", version.path)).toMatchObject({ state: "succeeded", previousPath: null });
    expect(await bench.sides()).toEqual(await bench.expected(version));
  }, 60_000);

  test("that breaks half-way is unlinked again, with its packages, and the outcome says what stays", async () => {
    const bench = benchOf("home-manager", "cleo");
    await startAgent(bench, "home-manager-cleo");
    const faults = [{ stage: "link", kind: "exit", argument: 1 }] as const;
    const options = { name: "app", version: "broken", packages: true, faults };
    const { state, reason } = await deploy("home-manager-cleo", await fleet.builder.build("home-manager", options));
    expect(state).toBe("rolled-back");
    expect(reason).toContain("the machine is back on having no version; what its own steps did besides");
    expect(await bench.sides()).toEqual(await bench.expected(null));
    expect(await device.run(["nix-env", "--query"], { user: "cleo" })).toBe("");
  }, 60_000);

  test("of the older protocol that does not prove itself leaves no profile", async () => {
    const bench = benchOf("home-manager", "dora");
    await startAgent(bench, "home-manager-dora");
    const version = await bench.build({ version: "old", protocol: 0 });
    const script = await fleet.builder.build("script", { name: "no", text: "#!/bin/sh\nexit 1\n" });
    await fleet.expectRun(["push", version.path, script]);
    const spec = join(fleet.directory, "spec-dora.json");
    const platform = process.arch === "arm64" ? "aarch64-linux" : "x86_64-linux";
    await writeFile(
      spec,
      JSON.stringify({ agents: { "home-manager-dora": version.path }, rollbackScript: { [platform]: script } }),
    );
    const result = await fleet.run(["activate", spec, "--json"]);
    const [deployment] = rolloutResultSchema.parse(JSON.parse(result.stdout)).deployments;
    expect(deployment?.state).toBe("rolled-back");
    expect(await bench.sides()).toEqual(await bench.expected(null));
  }, 60_000);
});

describe("nix-darwin", () => {
  test("runs a user's script where there is one, and not the one that is left in its place", async () => {
    const build = (version: string, userScript: "real" | "deprecated") =>
      fleet.builder.build("darwin", { name: "app", version, userScript });
    const [real, deprecated] = [await build("real", "real"), await build("deprecated", "deprecated")];
    expect(await deploy("darwin-root", real)).toMatchObject({ state: "succeeded" });
    expect(await deploy("darwin-root", deprecated)).toMatchObject({ state: "succeeded" });
    expect(await device.run(["cat", "/nix/var/mac/user-scripts"])).toBe("real as root");
    system = { path: deprecated, version: "deprecated", protocol: 1 };
    expect(await mac.sides()).toEqual(await mac.expected(system));
  }, 60_000);

  const PROGRAMS = [
    [{ program: "missing" }, /script .*\/activate is missing/],
    [{ program: "not-executable" }, /script .*\/activate is not an executable file/],
    [{ program: "foreign" }, /activate is a program for another kind of machine, which this machine cannot run/],
    [{ platform: "aarch64-darwin" }, /it is a system for aarch64-darwin, and this machine is/],
  ] as const;
  test.each(PROGRAMS)("with %j is refused", async (options, words) => {
    const path = await fleet.builder.build("darwin", { name: "app", version: "bad", ...options });
    await expectRefused(mac, path, words);
  });

  test("that goes wrong in the middle after a reboot finds the old system, without the new one's daemons", async () => {
    const faults = [{ stage: "end", kind: "hold", argument: "mac" }] as const;
    const version = await mac.build({ version: "rebooted", faults });
    const holds = createHolds(device);
    await fleet.expectRun(["push", version.path]);
    await holds.set("mac");
    const activate = await fleet.start(["activate", `darwin-root=${version.path}`, "--json"]);
    await holds.reached("mac", activate.output);
    await device.powerOff();
    await device.run([`${system.path}/activate-system`]);
    await device.startDaemon();
    await startAgent(mac, "darwin-root");
    await activate.exited;
    expect(activate.output()).toContain("rebooted before the new version had proved itself");
    expect(await mac.sides()).toEqual(await mac.expected(system));
    await startAgent(homes, "home-manager-ada");
  }, 60_000);
});

describe("a home", () => {
  test("is only told about in mode dry-activate", async () => {
    const version = await homes.build({ version: "dry" });
    const { state, id } = await deploy("home-manager-ada", version.path, ["--mode", "dry-activate"]);
    expect(state).toBe("succeeded");
    expect(await fleet.expectRun(["logs", id])).toContain(".app-dry");
    expect(await homes.sides()).toEqual(await homes.expected(home));
  }, 60_000);

  test("whose own steps do not heed a dry run is said to have been changed", async () => {
    const options = { name: "app", version: "careless", ignoresDryRun: true };
    const path = await fleet.builder.build("home-manager", options);
    const { state, reason } = await deploy("home-manager-ada", path, ["--mode", "dry-activate"]);
    expect([state, reason]).toEqual(["failed", expect.stringContaining("changed the home although it was a dry run")]);
    await homes.reset(home);
  }, 60_000);

  test("with a file in the way is left alone, whatever the code says", async () => {
    const version = await homes.build({ version: "collides" });
    const file = join(device.environmentOf("ada")["HOME"] ?? "", ".app-collides");
    await device.run(["/bin/sh", "-c", `echo mine > ${file}`], { user: "ada" });
    await expectRefused(homes, version.path, /script ended with code 1/);
    expect(await device.run(["cat", file])).toBe("mine");
  }, 60_000);

  test.each([
    ["missing", /script .*\/activate is missing/],
    ["not-executable", /script .*\/activate is not an executable file/],
    ["foreign", /activate is a program for another kind of machine/],
  ] as const)("with a script that is %s is refused", async (program, words) => {
    await expectRefused(
      homes,
      await fleet.builder.build("home-manager", { name: "app", version: "bad", program }),
      words,
    );
  });

  test.each([
    ["home directory", () => device.environmentOf("ada")["HOME"] ?? ""],
    ["profile directory", () => join(homes.profilePath, "..")],
  ] as const)("whose %s is not writable is refused", async (what, place) => {
    const version = await homes.build({ version: "read-only" });
    await chmod(device.hostPath(place()), 0o555);
    try {
      await expectRefused(homes, version.path, exactly(`he ${what} ${place()} is not writable`));
    } finally {
      await chmod(device.hostPath(place()), 0o755);
    }
  });

  test("whose profile is still at its former place is refused", async () => {
    const former = "/nix/var/nix/profiles/per-user/ada";
    await mkdir(device.hostPath(former), { recursive: true });
    await device.run(["ln", "-s", home.path, `${former}/home-manager`]);
    try {
      await expectRefused(
        homes,
        (await homes.build({ version: "moved" })).path,
        exactly(`is still ${former}/home-manager`),
      );
    } finally {
      await rm(device.hostPath(former), { recursive: true });
    }
  });

  test.each(["boot", "test"])("knows no mode %s", async (mode) => {
    await expectRefused(homes, (await homes.build({ version: "mode" })).path, `which has no mode ${mode}`, [
      "--mode",
      mode,
    ]);
  });

  test("does not become a package", async () => {
    const path = await fleet.builder.build("profile", { name: "app", version: "1" });
    await expectRefused(homes, path, /it is a plain package, and .* holds a Home Manager generation/);
  });

  test("of the older protocol is refused in a profile that is not Home Manager's own", async () => {
    const { path } = await homes.build({ version: "legacy", protocol: 0 });
    await fleet.startAgent(device, { name: "other-ada", profile: "other", user: "ada" });
    const { state, reason } = await deploy("other-ada", path);
    expect([state, reason]).toEqual(["failed", expect.stringContaining(`sets ${homes.profilePath} itself`)]);
    expect(await homes.sides()).toEqual(await homes.expected(home));
  }, 60_000);
});

describe("a package with a hook", () => {
  beforeAll(() => startAgent(benchOf("plain", "eve"), "plain-eve"), 30_000);

  test.each([
    ["not-executable", /ts hook .*share\/nixdeploy\/activate is not an executable file/],
    ["foreign", /ts hook .* is a program for another kind of machine/],
    ["dangling", /ts hook .* is missing/],
    ["outside", /ts hook .* leads out of the store, to \//],
  ] as const)("that is %s is refused", async (program, words) => {
    const bench = benchOf("plain", "eve");
    const path = await fleet.builder.build("profile", { name: "app", version: program, hook: { program } });
    await expectRefused(bench, path, words);
  });

  test("that fails at a first installation leaves no profile, and the outcome says what stays", async () => {
    const bench = benchOf("plain", "eve");
    const { path } = await bench.build({ version: "broken", faults: [{ stage: "start", kind: "exit", argument: 3 }] });
    const deployment = await deploy("plain-eve", path);
    expect(deployment.state).toBe("rolled-back");
    expect(deployment.reason).toContain("The hook of the new version ended with code 3");
    expect(deployment.reason).toContain("what its hook did is not taken back");
    expect(await bench.sides()).toEqual(await bench.expected(null));
  }, 60_000);
});

test("agents of root and of two people activate side by side", async () => {
  const benches = [benchOf("plain"), benchOf("plain", "eve"), homes];
  await startAgent(benchOf("plain"), "plain-root", "/nix/var/nix/profiles/per-machine/tools");
  const holds = createHolds(device);
  const versions: Version[] = [];
  for (const [index, bench] of benches.entries()) {
    const version = await bench.build({
      version: `side-${index}`,
      faults: [{ stage: "link", kind: "hold", argument: `side-${index}` }],
    });
    await holds.set(`side-${index}`);
    await fleet.expectRun(["push", version.path]);
    versions.push(version);
  }
  const targets = benches.map((bench, index) => `${agentOf(bench.type, bench.user)}=${versions[index]?.path}`);
  const activate = await fleet.start(["activate", ...targets, "--json"]);
  // All three are in the middle of it at the same time.
  for (const index of benches.keys()) await holds.reached(`side-${index}`, activate.output);
  await holds.releaseAll();
  expect((await activate.exited).exitCode).toBe(0);
  expect(await device.link("/nix/var/nix/profiles/per-machine/tools")).toBe(versions[0]?.path ?? "");
  for (const [index, bench] of benches.entries()) {
    if (index > 0) expect(await bench.sides()).toEqual(await bench.expected(versions[index] ?? null));
  }
}, 90_000);
