import { describe, expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { type CoordinatorClient, createCoordinatorClient } from "../../../src/client/api/coordinator.ts";
import { createHttpTransport } from "../../../src/client/api/transport.ts";
import { type FollowOptions, type FollowResult, followDeployments } from "../../../src/client/follow/follow.ts";
import type { FollowNote } from "../../../src/client/follow/follow-state.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { parseCacheName } from "../../../src/names.ts";
import { loadUploadPlan, runUpload } from "../../../src/nix/cache/upload/upload.ts";
import { PART_BYTES } from "../../../src/nix/cache/upload/upload-parts.ts";
import type { StorePath } from "../../../src/nix/store-path.ts";
import { storePathHash } from "../../../src/nix/store-path.ts";
import { systemClock } from "../../../src/runtime.ts";
import { failureOf } from "../../support/failure.ts";
import { FAKE_TOKEN, type FakeCoordinator, problem, startFakeCoordinator } from "../../support/fake-coordinator.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { impatientRandom } from "../../support/run-command.ts";
import { waitFor } from "../../support/wait-for.ts";

const signal = new AbortController().signal;
const CACHE = parseCacheName("default");

function connect(fake: FakeCoordinator, token = FAKE_TOKEN): CoordinatorClient & AsyncDisposable {
  const options = { env: {}, clock: systemClock, random: impatientRandom, userAgent: "test" };
  const http = createHttpTransport({ ...options, url: fake.url, token });
  return { ...createCoordinatorClient(http), [Symbol.asyncDispose]: () => http[Symbol.asyncDispose]() };
}

describe("calls", () => {
  test("carry the token and come back as their schemas say", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    fake.addAgent("nuc");
    const token = await client.createToken({ kind: "push", expiresInMs: 1_000 }, signal);
    expect(await client.listTokens(undefined, signal)).toMatchObject([{ id: token.id, kind: "push" }]);
    await client.revokeToken(token.id, signal);
    expect(await client.listTokens(undefined, signal)).toEqual([]);
    expect(await client.listAgents({}, signal)).toMatchObject([{ name: "nuc", contact: "online" }]);
    expect(await client.loadStatus(undefined, signal)).toMatchObject({ agents: { online: 1 } });
    expect(await client.loadCache(CACHE, signal)).toMatchObject({ name: "default", public: false });
    expect(await client.setCache(CACHE, { public: true }, signal)).toMatchObject({ public: true });
    expect(new Set(fake.requests.map(({ authorization }) => authorization))).toEqual(new Set([`Bearer ${FAKE_TOKEN}`]));
  });

  test("fail with the coordinator's own words", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    const rollout = client.createRollout({
      request: { agents: { nuc: "/nix/store/x", tv: "/nix/store/y" }, mode: "switch" },
      ...{ idempotencyKey: "one", signal },
    });
    const refused = await failureOf(rollout);
    expect(refused.kind).toBe("refused");
    expect(refused.details).toHaveLength(2);
    await using stranger = connect(fake, "wrong");
    expect((await failureOf(stranger.listTokens(undefined, signal))).kind).toBe("denied");
  });
});

describe("a rollout whose answer gets lost", () => {
  test("is asked for again with the same key, and started once", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    fake.addAgent("nuc");
    let lost = 0;
    fake.intercept = async (_request, next) => {
      const answer = await next();
      lost += 1;
      return lost < 3 ? new Response("gone", { status: 502 }) : answer;
    };
    const request = { agents: { nuc: "/nix/store/00000000000000000000000000000000-a" }, mode: "switch" as const };
    const rollout = await client.createRollout({ request, idempotencyKey: "run-7", signal });
    expect(rollout).toMatchObject({ id: fake.rollouts[0]?.id, isRepeat: true });
    expect(fake.rolloutRequests).toHaveLength(1);
    expect(fake.requests.map(({ idempotencyKey }) => idempotencyKey)).toEqual(["run-7", "run-7", "run-7"]);
  });
});

describe("an upload", () => {
  async function upload(fake: FakeCoordinator, store: MemoryStore, root: StorePath) {
    await using client = connect(fake);
    const target = client.uploadTarget(CACHE);
    await using main = await store.open();
    const plan = await loadUploadPlan({ roots: [root], store: main, target, signal });
    const options = { plan, target, sign: null, jobs: 2, clock: systemClock, random: impatientRandom, signal };
    return await runUpload({ ...options, openStore: store.open, onEvent: () => {} });
  }

  function setUp() {
    const store = createMemoryStore();
    const library = store.add("library", "x");
    const root = store.add("large", randomFillSync(new Uint8Array(PART_BYTES + 1_000)), [library]);
    return { store, root };
  }
  const isPart = (request: { method: string }) => request.method === "PUT";

  test("arrives whole, and is readable as vanilla Nix would read it", async () => {
    await using fake = startFakeCoordinator();
    const { store, root } = setUp();
    expect(await upload(fake, store, root)).toMatchObject({ uploadedPaths: 2 });
    await using client = connect(fake);
    const path = `${storePathHash(root)}.narinfo`;
    const narInfo = await client.cacheReader(CACHE).readFile(path, { bytesMax: 10_000, signal });
    expect(new TextDecoder().decode(narInfo ?? new Uint8Array())).toContain(`StorePath: ${root}`);
    const reading = client.cacheReader(CACHE).readFile(path, { bytesMax: 10, signal });
    expect((await failureOf(reading)).kind).toBe("remote");
    expect(await client.cacheReader(CACHE).readFile("nothing.narinfo", { bytesMax: 10, signal })).toBeNull();
  });

  test("survives a lost answer to each part, a 503, and a restart", async () => {
    for (const fault of ["lost answer", "503", "restart"]) {
      for (let failing = 0; failing < 3; failing += 1) {
        await using fake = startFakeCoordinator();
        const { store, root } = setUp();
        let parts = 0;
        fake.intercept = async (request, next) => {
          if (!isPart(request) || parts++ !== failing) return await next();
          if (fault === "503") return problem(new NixdeployError("unreachable", "one moment"));
          if (fault === "restart") fake.cache.forgetUploads();
          const answer = await next();
          if (fault === "restart") return answer;
          fake.cutConnections();
          return answer;
        };
        expect(await upload(fake, store, root)).toMatchObject({ uploadedPaths: 2 });
        expect(fake.cache.paths.size).toBe(2);
      }
    }
  }, 60_000);

  test("ends at once when the token is revoked on the way", async () => {
    await using fake = startFakeCoordinator();
    const { store, root } = setUp();
    let parts = 0;
    fake.intercept = async (request, next) =>
      isPart(request) && parts++ > 0 ? problem(new NixdeployError("denied", "the token was revoked")) : await next();
    const error = await failureOf(upload(fake, store, root));
    expect([error.kind, error.message]).toEqual(["denied", "the token was revoked"]);
    expect([fake.cache.paths.size, store.connections.open]).toEqual([0, 0]);
  });
});

describe("following", () => {
  type Followed = { readonly result: Promise<FollowResult>; readonly notes: FollowNote[]; readonly contacts: string[] };

  async function start(fake: FakeCoordinator, client: CoordinatorClient): Promise<Followed> {
    fake.addAgent("nuc");
    const request = { agents: { nuc: "/nix/store/00000000000000000000000000000000-a" }, mode: "switch" as const };
    const rollout = await client.createRollout({ request, idempotencyKey: "one", signal });
    const notes: FollowNote[] = [];
    const contacts: string[] = [];
    const options: FollowOptions = {
      openEvents: client.followRollout(rollout.id),
      deployments: rollout.deployments,
      until: "settled",
      timeoutMs: 20_000,
      clock: systemClock,
      random: impatientRandom,
      signal,
      onNote: (note) => void notes.push(note),
      onContact: (contact) => void contacts.push(contact),
    };
    const result = followDeployments(options);
    await waitFor("a follower", () => fake.followers === 1);
    return { result, notes, contacts };
  }
  const lineNumbers = (notes: readonly FollowNote[]) =>
    notes.flatMap((note) => (note.kind === "log" ? [note.line.n] : []));

  test("a connection cut in mid stream is opened again where it ended", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    const { result, notes, contacts } = await start(fake, client);
    fake.appendLog("nuc", "one", "two");
    await waitFor("two lines", () => lineNumbers(notes).length === 2);
    fake.cutConnections();
    fake.appendLog("nuc", "three");
    fake.setDeployment("nuc", { state: "succeeded" });
    expect((await result).end).toEqual({ kind: "over", exitCode: 0 });
    expect([lineNumbers(notes), contacts]).toEqual([
      [1, 2, 3],
      ["lost", "back"],
    ]);
    const follows = fake.requests.filter(({ path }) => path.endsWith("/follow"));
    expect(follows.map(({ lastEventId }) => lastEventId)).toEqual([null, "2"]);
  });

  test("a restart of the coordinator is survived", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    const { result, notes, contacts } = await start(fake, client);
    fake.appendLog("nuc", "one");
    await waitFor("a line", () => lineNumbers(notes).length === 1);
    await fake.stop();
    await waitFor("the loss", () => contacts.includes("lost"));
    fake.appendLog("nuc", "two");
    fake.start();
    await waitFor("the return", () => contacts.includes("back"));
    fake.setDeployment("nuc", { state: "failed", reason: "the disk is full" });
    expect(await result).toMatchObject({
      end: { kind: "over", exitCode: 1 },
      deployments: [{ reason: "the disk is full" }],
    });
    expect(lineNumbers(notes)).toEqual([1, 2]);
  });

  test("a token that is revoked on the way ends it", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    const { result } = await start(fake, client);
    fake.intercept = async () => problem(new NixdeployError("denied", "the token was revoked"));
    fake.cutConnections();
    expect((await failureOf(result)).kind).toBe("denied");
  });

  test("an event of another shape is the other side's fault; an unknown one is passed over", async () => {
    await using fake = startFakeCoordinator();
    await using client = connect(fake);
    fake.intercept = async () =>
      new Response('event: weather\ndata: {}\n\nevent: log\ndata: {"lines": 7}\n\n', {
        headers: { "content-type": "text/event-stream" },
      });
    fake.addAgent("nuc");
    const read = async () => {
      for await (const _ of client.followRollout("rrrrrrrrrrrrrrrr" as never)(null, signal))
        throw new Error("an event");
    };
    const error = await failureOf(read());
    expect([error.kind, error.message]).toEqual(["remote", expect.stringContaining("a log event of another shape")]);
  });
});
