/** `activate` of what only a foreign cache has, over real HTTP: taken when it is whole and signed, else refused with the reason. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { problemSchema } from "../../../src/api/problem.ts";
import { rolloutPlanSchema } from "../../../src/api/rollout-plans.ts";
import { formatNarInfo } from "../../../src/nix/narinfo.ts";
import { formatPublicKey, publicKeyOf, type SecretKey, secretKeyFromSeed } from "../../../src/nix/signing-key.ts";
import { storePathHash } from "../../../src/nix/store-path.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { type FaultyCache, narInfoOf, startFaultyCache } from "../../support/faulty-cache.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";
import { waitFor } from "../../support/wait-for.ts";

const FOREIGN = secretKeyFromSeed("foreign-1", new Uint8Array(32).fill(3));
const OTHER = secretKeyFromSeed("foreign-1", new Uint8Array(32).fill(4));

const libc = createTinyPath("libc");
const lib = createTinyPath("lib", { references: [libc.storePath] });
const app = createTinyPath("app", { references: [lib.storePath, libc.storePath] });

let server: TestCoordinator;
let foreign: FaultyCache;

beforeEach(async () => {
  [server, foreign] = await Promise.all([createTestCoordinator(), startFaultyCache()]);
  await server.connectAgent("nuc");
});

afterEach(async () => {
  await Promise.all([server[Symbol.asyncDispose](), foreign[Symbol.asyncDispose]()]);
});

function fill(key: SecretKey, ...paths: readonly TinyPath[]): void {
  for (const path of paths) {
    foreign.files.set(`/${storePathHash(path.storePath)}.narinfo`, Buffer.from(formatNarInfo(narInfoOf(path, key))));
  }
}

async function addForeign(key = FOREIGN, url = foreign.url): Promise<void> {
  const json = { url, publicKeys: [formatPublicKey(publicKeyOf(key))] };
  await expectOk(await server.fetch("workspaces/default/foreign-caches/nixos", { method: "PUT", json }));
}

const activate = async (path: TinyPath) =>
  await server.fetch("rollouts", { json: { agents: { nuc: path.storePath }, mode: "switch" } });

async function faultsOf(answer: Response): Promise<readonly string[]> {
  expect(answer.status).toBe(422);
  return problemSchema.parse(await answer.json()).errors ?? [];
}

test("a closure of a foreign cache is taken, and offered with its size", async () => {
  fill(FOREIGN, app, lib, libc);
  await addForeign();
  const answer = await expectOk(await activate(app));
  expect(answer.status).toBe(201);
  const row = await server.coordinator.services.database
    .selectFrom("deployments")
    .selectAll()
    .executeTakeFirstOrThrow();
  expect(row.closure_size_bytes).toBe(app.nar.length + lib.nar.length + libc.nar.length);
  expect(new Set(foreign.requests.map(({ token }) => token))).toEqual(new Set([null]));
});

test("its size counts what is in an own cache once", async () => {
  fill(FOREIGN, app);
  await server.publishUnseen(libc, lib);
  await addForeign();
  await expectOk(await activate(app));
  const row = await server.coordinator.services.database
    .selectFrom("deployments")
    .selectAll()
    .executeTakeFirstOrThrow();
  expect(row.closure_size_bytes).toBe(app.nar.length + lib.nar.length + libc.nar.length);
  expect(foreign.requests).toHaveLength(1);
});

describe("what it would change", () => {
  const libc2 = createTinyPath("libc-2");
  const app2 = createTinyPath("app-2", { references: [libc2.storePath, lib.storePath] });

  async function plan(from: TinyPath, to: TinyPath, name = "tv") {
    const state = { profilePath: from.storePath, generation: 1, currentPath: null, bootedPath: null };
    await server.connectAgent(name, {
      state: { ...state, storeFreeBytes: null, inFlight: null },
      profile: "/nix/var/nix/profiles/tools",
    });
    const json = { agents: { [name]: to.storePath }, mode: "switch" };
    const { agents, diffs } = rolloutPlanSchema.parse(
      await (await expectOk(await server.fetch("rollout-plans", { json }))).json(),
    );
    return { agent: agents[0], diff: diffs[0] };
  }

  test("is told where a foreign cache alone has what runs and what is to run", async () => {
    fill(FOREIGN, app, app2, lib, libc, libc2);
    await addForeign();
    const { agent, diff } = await plan(app, app2);
    expect(agent).toMatchObject({ from: app.storePath, to: app2.storePath, diff: 0, why: null });
    expect(diff).toMatchObject({
      changes: [
        { name: "app", kind: "changed", before: [], after: ["2"] },
        { name: "libc", kind: "changed", before: [], after: ["2"] },
      ],
      sizeBeforeBytes: app.nar.length + lib.nar.length + libc.nar.length,
      sizeAfterBytes: app2.nar.length + lib.nar.length + libc.nar.length + libc2.nar.length,
      fetchPaths: 2,
      fetchBytes: app2.file.length + libc2.file.length,
    });
  });

  test("is told where one of our own caches has a part of it", async () => {
    fill(FOREIGN, app2);
    await server.publishUnseen(libc, libc2, lib, app);
    await addForeign();
    const { agent, diff } = await plan(app, app2);
    expect(agent).toMatchObject({ diff: 0, why: null });
    expect(diff).toMatchObject({ fetchPaths: 2, fetchBytes: app2.file.length + libc2.file.length });
  });

  test("is not told of what is known by half, and why is said", async () => {
    fill(FOREIGN, app);
    await server.publishUnseen(libc2, libc, lib, app2);
    await addForeign();
    foreign.files.delete(`/${storePathHash(app.storePath)}.narinfo`);
    expect((await plan(app, app2)).agent).toMatchObject({
      diff: null,
      why: `what runs there is in none of the caches: ${app.storePath}`,
    });
    const orphan = createTinyPath("orphan", { references: [createTinyPath("gone").storePath] });
    fill(FOREIGN, orphan);
    const { agent } = await plan(orphan, app2, "pi");
    expect(agent?.why).toStartWith(`what runs there is not known whole: ${orphan.storePath} is not whole: `);
  });

  test("does not wait long for a cache that does not answer", async () => {
    await server.publishUnseen(libc2, libc, lib, app2);
    await using silent = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Promise<Response>(() => {}) });
    await addForeign(FOREIGN, silent.url.href);
    const startMs = server.clock.monotonicMs();
    let answer: Awaited<ReturnType<typeof plan>> | null = null;
    const done = plan(app, app2).then((arrived) => {
      answer = arrived;
    });
    await waitFor("the answer", async () => {
      await server.clock.advance(500);
      return answer !== null;
    });
    await done;
    expect(server.clock.monotonicMs() - startMs).toBeLessThanOrEqual(10_000);
    expect(answer).toMatchObject({ agent: { why: expect.stringContaining("the cache nixos could not be asked for") } });
    await silent.stop(true);
  });
});

test("without the foreign cache it is refused, and nobody is asked", async () => {
  fill(FOREIGN, app, lib, libc);
  expect(await faultsOf(await activate(app))).toEqual([`${app.storePath} is not in the cache default: push it first`]);
  expect(foreign.requests).toEqual([]);
});

test("good answers are remembered for an hour, and not under another key", async () => {
  fill(FOREIGN, app, lib, libc);
  await addForeign();
  for (let times = 0; times < 3; times += 1) await expectOk(await activate(app));
  expect(foreign.requests).toHaveLength(3);
  await server.clock.advance(61 * 60_000);
  await expectOk(await activate(app));
  expect(foreign.requests).toHaveLength(6);
  await addForeign(OTHER);
  expect((await activate(app)).status).toBe(422);
});

test("that it was absent is not remembered", async () => {
  await addForeign();
  expect((await activate(libc)).status).toBe(422);
  fill(FOREIGN, libc);
  await expectOk(await activate(libc));
});

describe("refused, with the reason", () => {
  test("signed by another key of the same name", async () => {
    fill(OTHER, libc);
    await addForeign();
    expect(await faultsOf(await activate(libc))).toEqual([
      `${libc.storePath}, which the foreign cache nixos has: it has a signature that names foreign-1, ` +
        "none that is valid under the keys it was added with (foreign-1)",
    ]);
  });

  test("the narinfo of another path", async () => {
    foreign.files.set(`/${storePathHash(libc.storePath)}.narinfo`, Buffer.from(formatNarInfo(narInfoOf(app, FOREIGN))));
    await addForeign();
    expect((await faultsOf(await activate(libc)))[0]).toContain(`it answers with the narinfo of ${app.storePath}`);
  });

  test("what is no narinfo", async () => {
    foreign.files.set(`/${storePathHash(libc.storePath)}.narinfo`, Buffer.from("StorePath: nonsense\n"));
    await addForeign();
    expect((await faultsOf(await activate(libc)))[0]).toContain(
      "which the foreign cache nixos has: cannot use its narinfo",
    );
  });

  test("a part of the closure that nobody has", async () => {
    fill(FOREIGN, app, lib);
    await addForeign();
    expect(await faultsOf(await activate(app))).toEqual([
      expect.stringMatching(/-app is not whole: .* needs .*-libc, which is in none of the caches default, nixos$/),
    ]);
  });
});

describe("a foreign cache in trouble", () => {
  const untilRefused = async (path: TinyPath) => {
    let answer: Response | null = null;
    const done = activate(path).then((arrived) => {
      answer = arrived;
      return arrived;
    });
    await waitFor("the answer", async () => {
      await server.clock.advance(500);
      return answer !== null;
    });
    return await faultsOf(await done);
  };

  test("that is down is named as the reason, not the path as missing", async () => {
    foreign.decide = () => ({ status: 503 });
    await addForeign();
    expect(await untilRefused(libc)).toEqual([
      `the cache nixos could not be asked for ${libc.storePath}: it answered with status 503`,
    ]);
  });

  test("that nothing listens at, too", async () => {
    await addForeign(FOREIGN, "http://127.0.0.1:1");
    const [fault, ...others] = await untilRefused(libc);
    expect(fault).toStartWith(`the cache nixos could not be asked for ${libc.storePath}: `);
    expect(others).toEqual([]);
  });

  test("that never answers is given up in time", async () => {
    await using silent = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Promise<Response>(() => {}) });
    await addForeign(FOREIGN, silent.url.href);
    const startMs = server.clock.monotonicMs();
    const [fault] = await untilRefused(libc);
    expect(fault).toStartWith(`the cache nixos could not be asked for ${libc.storePath}: `);
    expect(server.clock.monotonicMs() - startMs).toBeLessThanOrEqual(25_000);
    await silent.stop(true);
  });

  test("for a moment is waited for", async () => {
    fill(FOREIGN, libc);
    foreign.decide = ({ index }) => (index < 2 ? { status: 503 } : null);
    await addForeign();
    const done = activate(libc);
    await waitFor("it is asked three times", async () => {
      await server.clock.advance(300);
      return foreign.requests.length >= 3;
    });
    expect((await done).status).toBe(201);
  });

  test("does not matter for what an own cache has", async () => {
    foreign.decide = () => ({ status: 503 });
    await addForeign();
    await server.publishUnseen(libc);
    await expectOk(await activate(libc));
    expect(foreign.requests).toEqual([]);
  });
});
