/** What lies on the device's disk: locks, keys, pins, profiles, garbage-collector roots. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { lutimes, mkdir, readdir, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { planPins, readEnrolment, writeEnrolment } from "../../../src/agent/link/enrolment.ts";
import { loadIdentity } from "../../../src/agent/link/identity.ts";
import type { SystemType } from "../../../src/agent/machine/detect.ts";
import { tryLockFile } from "../../../src/agent/machine/flock.ts";
import { createGcRoots } from "../../../src/agent/machine/gc-roots.ts";
import { createMachine, readTopNames } from "../../../src/agent/machine/machine.ts";
import { readProfile } from "../../../src/agent/machine/profile-link.ts";
import { signKeyStatement } from "../../../src/key-statement.ts";
import { parseAgentId, parseAgentName, parseCacheName, parseWorkspaceName } from "../../../src/names.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { createMemoryDaemon } from "../../support/memory-daemon.ts";
import { runChecked, spawnProcess } from "../../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../../support/temporary-directory.ts";
import { storePathFor } from "../../support/tiny-path.ts";
import { deploymentIdOf } from "../offers.ts";

let directory: TemporaryDirectory;
beforeEach(async () => {
  directory = await createTemporaryDirectory("machine");
});
afterEach(async () => {
  await directory[Symbol.asyncDispose]();
});

describe("a lock", () => {
  test("excludes a second holder until it is released, and makes its folder", async () => {
    const path = directory.join("new", "folder", "lock");
    const first = tryLockFile(path, 0o700);
    expect(first).not.toBeNull();
    expect((await stat(directory.join("new", "folder"))).mode & 0o777).toBe(0o700);
    expect(tryLockFile(path)).toBeNull();
    first?.[Symbol.dispose]();
    const second = tryLockFile(path);
    expect(second).not.toBeNull();
    second?.[Symbol.dispose]();
  });

  test("of a process that is killed is free, and its children do not keep it", async () => {
    const path = directory.join("lock");
    const code = `
      import { tryLockFile } from ${JSON.stringify(new URL("../../../src/agent/machine/flock.ts", import.meta.url).pathname)};
      import { spawn } from "node:child_process";
      tryLockFile(${JSON.stringify(path)});
      const child = spawn("sleep", ["1000"], { stdio: "ignore" });
      console.log("locked", child.pid);
      await new Promise((resolve) => setTimeout(resolve, 100000));`;
    await writeFile(directory.join("holder.ts"), code);
    await using holder = spawnProcess([process.execPath, directory.join("holder.ts")]);
    const child = Number((await holder.waitForLine(/locked (\d+)/))[1]);
    expect(tryLockFile(path)).toBeNull();
    holder.kill("SIGKILL");
    await holder.exited;
    const freed = tryLockFile(path);
    process.kill(child, "SIGKILL");
    expect(freed).not.toBeNull();
    freed?.[Symbol.dispose]();
  });

  test("who only looks whether it is held keeps nobody out", async () => {
    const path = directory.join("lock");
    await writeFile(path, "");
    const source = `
      import { isLocked } from ${JSON.stringify(new URL("../../../src/agent/machine/flock.ts", import.meta.url).pathname)};
      console.log("looking");
      for (;;) {
        isLocked(${JSON.stringify(path)});
        Bun.sleepSync(1);
      }`;
    await using process = spawnProcess([globalThis.process.execPath, "-e", source]);
    await process.waitForLine(/looking/);
    let refused = 0;
    for (let round = 0; round < 20_000; round += 1) {
      using lock = tryLockFile(path);
      if (lock === null) refused += 1;
    }
    expect(refused).toBe(0);
  });

  test("that cannot be made says why", async () => {
    await writeFile(directory.join("file"), "");
    expect(() => tryLockFile(directory.join("file", "lock"))).toThrow(/^cannot write the lock .*is no directory$/);
  });
});

describe("the key", () => {
  const load = () => loadIdentity({ stateDirectory: directory.join("state"), random: systemRandom });

  test("is made once and stays", async () => {
    const first = await load();
    const second = await load();
    expect(second.publicKey).toBe(first.publicKey);
    expect(second.fingerprint).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/);
    expect(await readdir(directory.join("state"))).toEqual(["key"]);
  });

  test("that is damaged is an error, never a new key", async () => {
    await load();
    for (const text of ["", "nonsense", "AAAA"]) {
      await writeFile(directory.join("state", "key"), text);
      await expect(load()).rejects.toThrow("cannot read the agent's key");
    }
  });
});

describe("the enrolment", () => {
  const enrolment = {
    coordinatorUrl: "https://deploy.example",
    agentId: parseAgentId("0123456789abcdfg"),
    workspace: parseWorkspaceName("default"),
    pinnedPublicKeys: ["k-1:AAAA"],
  };

  test("is remembered", async () => {
    expect(await readEnrolment(directory.path)).toBeNull();
    await writeEnrolment(directory.path, enrolment);
    expect(await readEnrolment(directory.path)).toEqual(enrolment);
  });

  test("that is damaged is an error: pins are not forgotten silently", async () => {
    await writeFile(directory.join("enrolment.json"), '{"agentId":1}');
    await expect(readEnrolment(directory.path)).rejects.toThrow("cannot read");
  });

  const old = secretKeyFromSeed("k-1", new Uint8Array(32).fill(1));
  const next = publicKeyOf(secretKeyFromSeed("k-2", new Uint8Array(32).fill(2)));
  const [k1, k2] = [formatPublicKey(publicKeyOf(old)), formatPublicKey(next)];
  const keyStatements = [signKeyStatement(old, { cache: "default", newKey: next, sequence: 1, atMs: 0 })];
  const forged = keyStatements.map((statement) => ({ ...statement, atMs: 1 }));

  for (const [what, known, told, expected] of [
    ["the first contact pins", { given: [], pinned: [] }, { publicKeys: ["a:1", "b:2"] }, [["a:1", "b:2"], 0, 0]],
    ["the same keys again", { given: [], pinned: ["a:1"] }, { publicKeys: ["a:1"] }, [["a:1"], 0, 0]],
    ["a key less", { given: [], pinned: ["a:1", "b:2"] }, { publicKeys: ["a:1"] }, [["a:1", "b:2"], 0, 0]],
    ["another key is ignored", { given: [], pinned: ["a:1"] }, { publicKeys: ["a:9"] }, [["a:1"], 0, 1]],
    ["given keys win, nothing is pinned", { given: ["g:1"], pinned: [] }, { publicKeys: ["a:1"] }, [[], 0, 0]],
    ["no key at all", { given: [], pinned: [] }, { publicKeys: [] }, [[], 0, 1]],
    [
      "a key that the pinned one vouches for",
      { given: [], pinned: [k1] },
      { publicKeys: [k2], keyStatements },
      [[k2], 1, 0],
    ],
    ["the same told once more", { given: [], pinned: [k2] }, { publicKeys: [k2], keyStatements }, [[k2], 0, 0]],
    ["a forged statement", { given: [], pinned: [k1] }, { publicKeys: [k2], keyStatements: forged }, [[k1], 0, 2]],
    ["a given key stays, and it is said", { given: [k1], pinned: [] }, { publicKeys: [k2], keyStatements }, [[], 0, 1]],
  ] as const) {
    test(what, () => {
      const cache = { ...told, name: parseCacheName("default"), publicKeys: [...told.publicKeys] };
      const statements = "keyStatements" in told ? { keyStatements: [...told.keyStatements] } : {};
      const decision = planPins({ ...known, cache: { ...cache, ...statements } });
      expect([decision.pinned, decision.news.length, decision.warnings.length]).toEqual([
        [...expected[0]],
        expected[1],
        expected[2],
      ]);
    });
  }
});

describe("a profile", () => {
  const path = storePathFor("system");
  const configOf = (profilePath: string, type: SystemType | null = null) => ({
    profilePath,
    environment: { HOME: directory.join("home"), USER: "ada" },
    readType: async () => type,
    readKept: async () => [],
  });

  test("of Home Manager is told with the generation that is live in the home, and others with the running system", async () => {
    const live = storePathFor("generation");
    const roots = directory.join("home/.local/state/home-manager/gcroots");
    await mkdir(roots, { recursive: true });
    await symlink(live, join(roots, "current-home"));
    const currentOf = async (type: SystemType) =>
      (await createMachine(configOf(directory.join("none"), type)).readState(null)).currentPath;
    expect(await currentOf("home-manager")).toBe(live);
    expect(await currentOf("plain")).not.toBe(live);
  });

  test("is followed through its generation", async () => {
    await symlink(path, directory.join("system-42-link"));
    await symlink("system-42-link", directory.join("system"));
    expect(await readProfile(directory.join("system"))).toEqual({ storePath: path, generation: 42 });
    const state = await createMachine(configOf(directory.join("system"))).readState(null);
    expect(state).toMatchObject({ profilePath: path, generation: 42, inFlight: null });
  });

  for (const [what, prepare] of [
    ["does not exist", async () => {}],
    ["is a file", () => writeFile(directory.join("system"), "")],
    ["is a loop", () => symlink("system", directory.join("system"))],
    ["leads elsewhere", () => symlink("/etc", directory.join("system"))],
  ] as const) {
    test(`that ${what} names nothing`, async () => {
      await prepare();
      expect(await readProfile(directory.join("system"))).toEqual({ storePath: null, generation: null });
    });
  }

  test("the names at the top of a path that is gone, or a file, are none", async () => {
    expect((await readTopNames(path)).size).toBe(0);
  });

  test("this machine's platform is Nix's name of it", async () => {
    const kernel = (await runChecked(["uname", "-sm"])).toLowerCase().split(" ");
    expect(createMachine(configOf("/p")).system).toBe(`${kernel[1]}-${kernel[0]}`);
  });
});

test("roots that a power cut brought back go at the next start; the latest and those of journals stay", async () => {
  await using state = await createTemporaryDirectory("roots");
  const daemon = await createMemoryDaemon().connect({ signal: new AbortController().signal });
  const agent = parseAgentName("nuc");
  const syncStore = async () => {};
  const roots = createGcRoots({ agent, isRoot: false, stateDirectory: state.path, syncStore });
  const [old, journaled, latest] = [deploymentIdOf("a"), deploymentIdOf("b"), deploymentIdOf("c")];
  for (const [age, deploymentId] of [latest, journaled, old].entries()) {
    await roots.keep({ deploymentId, storePaths: [storePathFor(deploymentId), storePathFor("old")], daemon });
    const madeAt = new Date(Date.UTC(2026, 0, 9 - age));
    for (const link of [deploymentId, `${deploymentId}-1`]) {
      await lutimes(state.join("gcroots", `nuc-${link}`), madeAt, madeAt);
    }
  }
  await roots.dropForgotten([journaled]);
  const left = [journaled, latest].flatMap((id) => [`nuc-${id}`, `nuc-${id}-1`]);
  expect((await readdir(state.join("gcroots"))).toSorted()).toEqual(left.toSorted());
});

test("roots are links in the state directory, told to the daemon; those of other deployments go", async () => {
  const told: string[] = [];
  const daemon = await createMemoryDaemon().connect({ signal: new AbortController().signal });
  const listening = { ...daemon, addIndirectRoot: async (link: string) => void told.push(link) };
  const stateDirectory = directory.path;
  const roots = createGcRoots({
    agent: parseAgentName("nuc.a"),
    isRoot: false,
    stateDirectory,
    syncStore: async () => {},
  });
  const [first, second] = [deploymentIdOf("a"), deploymentIdOf("b")];
  const [one, two] = [storePathFor("one"), storePathFor("two")];
  await mkdir(directory.join("gcroots"));
  await writeFile(directory.join("gcroots", "nucXa-b000000000000000"), "another agent's");
  await roots.keep({ deploymentId: first, storePaths: [one, two], daemon: listening });
  await roots.keep({ deploymentId: first, storePaths: [two, one], daemon: listening });
  expect(await readlink(directory.join("gcroots", `nuc.a-${first}`))).toBe(two);
  expect(new Set(told)).toEqual(new Set([first, `${first}-1`].map((id) => directory.join("gcroots", `nuc.a-${id}`))));
  await roots.keep({ deploymentId: second, storePaths: [one], daemon: listening });
  expect(new Set(await roots.list())).toEqual(new Set([one, two]));
  await roots.dropOthers([second]);
  expect(await roots.list()).toEqual([one]);
  expect((await readdir(directory.join("gcroots"))).toSorted()).toEqual([
    "nuc.a-b000000000000000",
    "nucXa-b000000000000000",
  ]);
});
