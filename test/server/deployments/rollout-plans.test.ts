/** POST /rollout-plans: what a rollout would change, by what the agents say runs and what the caches hold. */
import { describe, expect, test } from "bun:test";
import { problemSchema } from "../../../src/api/problem.ts";
import { type RolloutPlanDto, rolloutPlanSchema } from "../../../src/api/rollout-plans.ts";
import { parseAgentName } from "../../../src/names.ts";
import { findAgentByName } from "../../../src/server/database/agents.ts";
import { loadWorkspaceCache } from "../../../src/server/database/caches.ts";
import { COMPARISON_LIMITS, compareClosures, keyOf } from "../../../src/server/deployments/compare-closures.ts";
import { decideRunning } from "../../../src/server/deployments/rollout-plans.ts";
import { createTestCoordinator, expectOk, type TestCoordinator } from "../../support/coordinator.ts";
import { createTinyPath, storePathFor } from "../../support/tiny-path.ts";

const GLIBC = createTinyPath("glibc-2.38");
const OLD_ZSH = createTinyPath("zsh-5.8", { references: [GLIBC.storePath] });
const ZSH = createTinyPath("zsh-5.9", { references: [GLIBC.storePath] });
const VIM = createTinyPath("vim-9", { references: [GLIBC.storePath] });
const OLD = createTinyPath("system-1", { references: [OLD_ZSH.storePath] });
const NEW = createTinyPath("system-2", { references: [ZSH.storePath, VIM.storePath] });
const BY_HAND = storePathFor("installed-by-hand");
const IDLE = {
  ...{ profilePath: null, generation: null, currentPath: null, bootedPath: null, storeFreeBytes: null, inFlight: null },
};

async function createServer(running: Readonly<Record<string, string | null>>): Promise<TestCoordinator> {
  const server = await createTestCoordinator();
  await server.publishUnseen(GLIBC, OLD_ZSH, ZSH, VIM, OLD, NEW);
  for (const [name, profilePath] of Object.entries(running)) {
    await server.connectAgent(name, { state: { ...IDLE, profilePath }, profile: "/nix/var/nix/profiles/tools" });
  }
  return server;
}

async function plan(server: TestCoordinator, agents: Readonly<Record<string, string>>): Promise<RolloutPlanDto> {
  const answer = await expectOk(await server.fetch("rollout-plans", { json: { agents, mode: "switch" } }));
  return rolloutPlanSchema.parse(await answer.json());
}

describe("a plan", () => {
  test("says for each agent what comes, goes and changes, and the same pair once", async () => {
    await using server = await createServer({ nuc: OLD.storePath, tv: OLD.storePath, pi: NEW.storePath });
    const to = NEW.storePath;
    const { agents, diffs } = await plan(server, { nuc: to, tv: to, pi: to });
    expect(agents.map(({ agent, from, diff, why }) => [agent, from, diff, why] as unknown[])).toEqual([
      ["nuc", OLD.storePath, 0, null],
      ["tv", OLD.storePath, 0, null],
      ["pi", NEW.storePath, 1, null],
    ]);
    expect(diffs).toHaveLength(2);
    expect(diffs[0]?.changes as unknown).toEqual([
      { name: "system", kind: "up", before: ["1"], after: ["2"] },
      { name: "zsh", kind: "up", before: ["5.8"], after: ["5.9"] },
      { name: "vim", kind: "added", before: [], after: ["9"] },
    ]);
    const sizeOf = (...paths: readonly { readonly nar: Uint8Array }[]) =>
      paths.reduce((sum, { nar }) => sum + nar.length, 0);
    expect(diffs[0]).toMatchObject({
      ...{ sizeBeforeBytes: sizeOf(OLD, OLD_ZSH, GLIBC), sizeAfterBytes: sizeOf(NEW, ZSH, VIM, GLIBC) },
      ...{ fetchPaths: 3, fetchBytes: [NEW, ZSH, VIM].reduce((sum, { file }) => sum + file.length, 0) },
    });
    expect(diffs[1]).toMatchObject({ changes: [], rebuilt: 0, fetchPaths: 0, fetchBytes: 0 });
  });

  test("starts nothing, and writes no line into the audit log", async () => {
    await using server = await createServer({ nuc: OLD.storePath });
    await plan(server, { nuc: NEW.storePath });
    expect(await (await expectOk(await server.fetch("deployments"))).json()).toMatchObject({ deployments: [] });
    expect(await (await expectOk(await server.fetch("audit"))).text()).not.toContain("rollout-plans");
  });

  test("says why it cannot compare: unknown path, nothing known", async () => {
    await using server = await createServer({ nuc: BY_HAND, pi: null });
    const { agents, diffs } = await plan(server, { nuc: NEW.storePath, pi: NEW.storePath });
    expect(diffs).toEqual([]);
    expect(agents.map(({ diff, why }) => [diff, why])).toEqual([
      [null, `what runs there is not in the cache: ${BY_HAND}`],
      [null, "nothing is known to run there yet"],
    ]);
  });

  test("is refused as the rollout would be, with every fault", async () => {
    await using server = await createServer({ nuc: OLD.storePath });
    const agents = { nuc: BY_HAND, nobody: NEW.storePath };
    const answer = await server.fetch("rollout-plans", { json: { agents, mode: "switch" } });
    expect(answer.status).toBe(422);
    const { errors = [] } = problemSchema.parse(await answer.json());
    expect(errors.join("\n")).toContain("agent nobody: no such agent");
    expect(errors.join("\n")).toContain(`${BY_HAND} is not in the cache`);
  });
});

test("what is beyond the limits is not compared, and says so; long lists are cut and say how much", async () => {
  await using server = await createServer({ nuc: OLD.storePath });
  const { services } = server.coordinator;
  const agent = await findAgentByName(services.database, {
    workspaceId: (await services.database.selectFrom("workspaces").select("id").executeTakeFirstOrThrow()).id,
    name: parseAgentName("nuc"),
  });
  const workspaceId = agent?.workspace_id ?? "";
  const { id: cacheId } = await loadWorkspaceCache(services.database, workspaceId);
  const pair = { from: OLD.storePath, to: NEW.storePath };
  const compare = async (limits: Partial<typeof COMPARISON_LIMITS>) => {
    const all = { ...COMPARISON_LIMITS, ...limits };
    const located = { cacheIds: [cacheId], foreignPaths: new Map(), gaps: new Map() };
    return (await compareClosures(services, { ...located, pairs: [pair, pair], limits: all })).get(keyOf(pair));
  };
  expect(await compare({ paths: 5 })).toBe("there is too much to compare at once");
  expect(await compare({ durationMs: -1 })).toBe("there is too much to compare at once");
  expect(await compare({ changesOfOne: 1 })).toMatchObject({ changes: [{ name: "system" }], changesOmitted: 2 });
  expect(await compare({ changes: 0 })).toMatchObject({ changes: [], changesOmitted: 3, fetchPaths: 3 });
  expect(await compare({})).toMatchObject({ changesOmitted: 0 });
});

test.each([
  ["a profile", "/nix/var/nix/profiles/tools", { profilePath: "p", currentPath: "c" }, "p"],
  ["a system", "/nix/var/nix/profiles/system", { profilePath: "p", currentPath: "c" }, "c"],
  ["a specialisation", "/nix/var/nix/profiles/system", { currentPath: "c", currentBasePath: "b" }, "b"],
  ["a system before its first switch", "/nix/var/nix/profiles/system", { profilePath: "p" }, "p"],
  ["nothing", "/nix/var/nix/profiles/system", {}, null],
] as const)("what runs is that of %s", (_what, profile, names, expected) => {
  const path = (key: "profilePath" | "currentPath" | "currentBasePath") =>
    key in names ? storePathFor(String(Reflect.get(names, key))) : null;
  const state = {
    profilePath: path("profilePath"),
    currentPath: path("currentPath"),
    currentBasePath: path("currentBasePath"),
  };
  expect(decideRunning(profile, state)).toBe(expected === null ? null : storePathFor(expected));
});
