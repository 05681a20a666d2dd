/**
 * A coordinator without a database, agents or rules of its own: answers the REST API (`src/api/`) over real HTTP, so
 * that a test decides what happens to a rollout, and what goes wrong on the way.
 */
import type { z } from "zod";
import { type AgentDto, agentSchema } from "../../src/api/agents.ts";
import {
  type CacheDto,
  cacheSchema,
  missingRequestSchema,
  publishRequestSchema,
  updateCacheSchema,
} from "../../src/api/caches.ts";
import {
  type DeploymentDto,
  deploymentSchema,
  type FollowEvent,
  followEventSchema,
} from "../../src/api/deployments.ts";
import { againPlanSchema, redeploymentPlanRequestSchema, redeploymentSchema } from "../../src/api/going-back.ts";
import { rolloutPlanSchema } from "../../src/api/rollout-plans.ts";
import {
  cancellationSchema,
  createRolloutSchema,
  type RolloutDto,
  retrySchema,
  rolloutSchema,
} from "../../src/api/rollouts.ts";
import { statusSchema } from "../../src/api/status.ts";
import {
  createdTokenSchema,
  createTokenSchema,
  identitySchema,
  type TokenDto,
  tokenSchema,
} from "../../src/api/tokens.ts";
import { isTerminal } from "../../src/deployment.ts";
import { NixdeployError, toHttpStatus } from "../../src/errors.ts";
import { drawId, parseTokenId } from "../../src/names.ts";
import { formatHashNix32, parseFileHash, parseNarHash } from "../../src/nix/hash.ts";
import { formatNarInfo } from "../../src/nix/narinfo.ts";
import { parseStorePathHash } from "../../src/nix/store-path.ts";
import { systemRandom } from "../../src/runtime.ts";
import { formatToken, parseToken } from "../../src/token.ts";
import { createMemoryCache, type MemoryCache } from "./memory-cache.ts";

export type SeenRequest = {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly authorization: string | null;
  readonly lastEventId: string | null;
  readonly idempotencyKey: string | null;
};

/** Answers instead of the coordinator, or lets it answer by `next`. */
export type Interception = (request: SeenRequest, next: () => Promise<Response>) => Promise<Response>;

export type FakeCoordinator = AsyncDisposable & {
  readonly url: string;
  readonly cache: MemoryCache;
  readonly requests: readonly SeenRequest[];
  readonly tokens: readonly TokenDto[];
  readonly rollouts: readonly RolloutDto[];
  /** The body of each POST /rollouts. */
  readonly rolloutRequests: readonly z.output<typeof createRolloutSchema>[];
  isCachePublic: boolean;
  /** The coordinator's clock; as it says, not as it runs here. */
  now: () => string;
  intercept: Interception | null;
  /** The answer of POST /rollout-plans; null: it is a coordinator that does not know that, or any other route for plans. */
  plan: z.input<typeof rolloutPlanSchema> | null;
  addAgent(name: string, contact?: AgentDto["contact"], facts?: Partial<Record<keyof AgentDto, unknown>>): void;
  /** The deployment of this agent in the latest rollout. */
  deploymentOf(agent: string): DeploymentDto;
  /** Changes a deployment and tells its followers. */
  setDeployment(agent: string, change: Partial<Record<keyof DeploymentDto, unknown>>): void;
  /** Adds lines to the log of an agent's deployment and tells its followers. */
  appendLog(agent: string, ...texts: string[]): void;
  sendProgress(agent: string, progress: { paths: number; pathsTotal: number; bytes: number; bytesTotal: number }): void;
  /** Followers connected now. */
  readonly followers: number;
  /** Breaks every connection at once, as a proxy or a killed process does; new ones are taken. */
  cutConnections(): void;
  /** Refuses connections until `start`, on the same port. */
  stop(): Promise<void>;
  start(): void;
};

export type FakeCoordinatorOptions = {
  /** Listen on this Unix socket instead of a port; everyone may do everything then. */
  readonly socketPath?: string;
};

const AT = "2026-01-01T00:00:00.000Z";
const AT_END = "2026-01-01T00:00:12.000Z";
/** What the tests log in with. */
export const FAKE_TOKEN = formatToken("admin", parseTokenId("0123456789abcdef"), new Uint8Array(32));

type Follower = { readonly send: (text: string) => void };
type Handler = (request: Request, url: URL, match: RegExpExecArray) => Response | Promise<Response>;
type Route = { readonly method: string; readonly path: RegExp; readonly handle: Handler };

function nothingToDo(what: string, words: readonly string[]): NixdeployError {
  return new NixdeployError("refused", `cannot ${what}: nothing was done`, {
    details: words.map((word) => `${word}: no`),
  });
}

export function startFakeCoordinator(options: FakeCoordinatorOptions = {}): FakeCoordinator {
  const cache = createMemoryCache();
  const requests: SeenRequest[] = [];
  const agents: AgentDto[] = [];
  const tokens: TokenDto[] = [];
  const rollouts: RolloutDto[] = [];
  const rolloutRequests: z.output<typeof createRolloutSchema>[] = [];
  const startedBy = new Map<string, RolloutDto>();
  const logs = new Map<string, { n: number; at: string; stream: "out"; text: string }[]>();
  const events: { readonly about: readonly string[]; readonly event: FollowEvent }[] = [];
  const followers = new Map<Follower, string>();
  let port = 0;

  const emit = (about: readonly string[], event: FollowEvent) => {
    events.push({ about, event: followEventSchema.parse(event) });
    for (const [follower, topic] of followers) {
      if (about.includes(topic)) follower.send(formatEvent(events.length, event));
    }
  };
  const findDeployment = (id: string) =>
    rollouts.flatMap((rollout) => rollout.deployments).find((one) => one.id === id);
  const deploymentOf = (agent: string): DeploymentDto => {
    const deployment = rollouts.at(-1)?.deployments.find((each) => each.agent === agent);
    if (deployment === undefined) throw new Error(`no deployment of ${agent} yet`);
    return deployment;
  };
  const isOver = (topic: string) => {
    const all = rollouts
      .flatMap((rollout) => rollout.deployments)
      .filter((one) => one.rollout === topic || one.id === topic);
    return all.every(({ state }) => isTerminal(state));
  };

  const follow = (topic: string, request: Request): Response => {
    const after = Number(request.headers.get("last-event-id") ?? 0);
    const seen = after > events.length ? 0 : after;
    let follower: Follower | null = null;
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        const encoder = new TextEncoder();
        const send = (text: string) => controller.enqueue(encoder.encode(text));
        follower = { send };
        send(": hello\n\n");
        events.slice(seen).forEach(({ about, event }, index) => {
          if (about.includes(topic)) send(formatEvent(seen + index + 1, event));
        });
        if (isOver(topic)) send(formatEvent(events.length, { event: "end", data: {} }));
        followers.set(follower, topic);
      },
      cancel() {
        if (follower !== null) followers.delete(follower);
      },
    });
    return new Response(stream, { headers: { "content-type": "text/event-stream" } });
  };

  const routes: readonly Route[] = [
    route("GET", "/healthz", () => new Response("ok\n")),
    route("GET", "/api/v1/status", () =>
      Response.json(
        statusSchema.parse({
          version: "0.1.0",
          url: fake.url,
          startedAt: AT,
          workspaces: ["default"],
          agents: {
            online: agents.filter(({ contact }) => contact === "online").length,
            offline: agents.filter(({ contact }) => contact === "offline").length,
            unknown: agents.filter(({ contact }) => contact === "unknown").length,
          },
          deploymentsRunning: 0,
          deploymentsQueued: 0,
          latestRollouts: rollouts.slice(-1),
        }),
      ),
    ),
    route("GET", "/api/v1/identity", (request) => {
      const token = parseToken((request.headers.get("authorization") ?? "").replace("Bearer ", ""));
      if (token === null) return Response.json({ token: null, now: AT, version: "0.1.0" });
      const { id, kind } = token;
      const facts = { description: "", createdAt: AT, expiresAt: null, lastUsedAt: null, revokedAt: null };
      const identity = { token: { id, kind, workspace: "default", ...facts }, now: fake.now(), version: "0.1.0" };
      return Response.json(identitySchema.parse(identity));
    }),
    route("GET", "/api/v1/agents", () => Response.json({ agents })),
    route("GET", "/api/v1/tokens", () => Response.json({ tokens })),
    route("POST", "/api/v1/tokens", async (request) => {
      const asked = createTokenSchema.parse(await request.json());
      const id = parseTokenId(drawId(systemRandom));
      const expiresAt =
        asked.expiresInMs === undefined ? null : new Date(Date.parse(AT) + asked.expiresInMs).toISOString();
      const workspace = asked.workspace ?? "default";
      const base = { id, kind: asked.kind, workspace, expiresAt };
      const description = asked.description ?? "";
      tokens.push(tokenSchema.parse({ ...base, description, createdAt: AT, lastUsedAt: null, revokedAt: null }));
      const token = formatToken(asked.kind, id, systemRandom.bytes(32));
      return Response.json(createdTokenSchema.parse({ ...base, token }), { status: 201 });
    }),
    route("DELETE", "/api/v1/tokens/(\\w+)", (_request, _url, [, id]) => {
      const index = tokens.findIndex((token) => token.id === id);
      if (index === -1) throw new NixdeployError("not-found", `cannot find the token ${id}`);
      tokens.splice(index, 1);
      return new Response(null, { status: 204 });
    }),
    route("GET", "/api/v1/caches", () => Response.json({ caches: [describeCache()] })),
    route("GET", "/api/v1/caches/default", () => Response.json(describeCache())),
    route("PATCH", "/api/v1/caches/default", async (request) => {
      fake.isCachePublic = updateCacheSchema.parse(await request.json()).public ?? fake.isCachePublic;
      return Response.json(describeCache());
    }),
    route("POST", "/api/v1/caches/default/missing", async (request) => {
      const { hashParts } = missingRequestSchema.parse(await request.json());
      return Response.json({ missing: [...(await cache.findMissing(hashParts, request.signal))] });
    }),
    route("PUT", "/api/v1/caches/default/nars/(\\w{52})", async (request, url, [, narHash]) => {
      const fileHash = url.searchParams.get("fileHash");
      const part = {
        narHash: parseNarHash(`sha256:${narHash}`),
        narSizeBytes: Number(url.searchParams.get("narSize")),
        uploadId: url.searchParams.get("upload") ?? "",
        offset: Number(url.searchParams.get("offset")),
        fileHash: fileHash === null ? null : parseFileHash(`sha256:${fileHash}`),
        body: await request.bytes(),
      };
      const answer = await cache.putPart(part, request.signal);
      if (answer.kind === "expects") return Response.json({ offset: answer.offset, complete: false }, { status: 409 });
      return Response.json({ offset: answer.offset, complete: answer.complete });
    }),
    route("POST", "/api/v1/caches/default/paths", async (request) => {
      const { paths } = publishRequestSchema.parse(await request.json());
      await cache.publish(paths, request.signal);
      return Response.json({ published: paths.length }, { status: 201 });
    }),
    route("GET", "/cache/default/(\\w{32})\\.narinfo", (_request, _url, [, hashPart]) => {
      const path = cache.paths.get(parseStorePathHash(hashPart ?? ""));
      if (path === undefined) return new Response("404", { status: 404 });
      const { fileHash } = path;
      const url = `nar/${formatHashNix32(fileHash)}.nar.zst`;
      const fileSizeBytes = cache.nars.get(path.narHash)?.file.length ?? 0;
      return new Response(formatNarInfo({ ...path, url, compression: "zstd", fileHash, fileSizeBytes }));
    }),
    route("GET", "/cache/default/nar/(\\w{52})\\.nar\\.zst", (_request, _url, [, fileHash]) => {
      const nar = [...cache.nars.values()].find((each) => each.fileHash === `sha256:${fileHash}`);
      return nar === undefined ? new Response("404", { status: 404 }) : new Response(nar.file.slice());
    }),
    route("POST", "/api/v1/rollouts", async (request) => {
      const key = request.headers.get("idempotency-key");
      const before = key === null ? undefined : startedBy.get(key);
      if (before !== undefined) return Response.json({ ...before, isRepeat: true });
      const asked = createRolloutSchema.parse(await request.json());
      rolloutRequests.push(asked);
      const rollout = createRollout(asked);
      rollouts.push(rollout);
      if (key !== null) startedBy.set(key, rollout);
      for (const data of rollout.deployments) emit([rollout.id, data.id], { event: "deployment", data });
      return Response.json(rollout, { status: 201 });
    }),
    route("POST", "/api/v1/rollout-plans", async (request) => {
      if (fake.plan === null) throw new NixdeployError("not-found", "cannot find /api/v1/rollout-plans");
      checkAgents(createRolloutSchema.parse(await request.json()));
      return Response.json(rolloutPlanSchema.parse(fake.plan));
    }),
    route("POST", "/api/v1/retries", async (request) => {
      const asked = retrySchema.parse(await request.json());
      const bad = rollouts.at(-1)?.deployments.filter(({ state }) => isTerminal(state) && state !== "succeeded") ?? [];
      if (bad.length === 0) throw nothingToDo("try again", asked.of);
      const agents = Object.fromEntries(bad.map(({ agent, storePath }) => [agent, storePath]));
      const rollout = createRollout({ agents, mode: "switch" });
      rollouts.push(rollout);
      return Response.json(rollout, { status: 201 });
    }),
    route("POST", "/api/v1/(?:rollbacks|redeployments)", async (request) => {
      const asked = redeploymentSchema.parse(await request.json());
      const last = rollouts.at(-1)?.deployments.filter(({ agent }) => asked.agents?.includes(agent) ?? true) ?? [];
      if (last.length === 0) throw nothingToDo("go back", asked.of);
      const before = Object.fromEntries(
        last.map(({ agent, previousPath, storePath }) => [agent, previousPath ?? storePath]),
      );
      const rollout = createRollout({ agents: before, mode: "switch" });
      rollouts.push(rollout);
      return Response.json(rollout, { status: 201 });
    }),
    route("POST", "/api/v1/(retry|rollback|redeployment)-plans", async (request, _url, [, what]) => {
      if (fake.plan === null) throw new NixdeployError("not-found", `cannot find /api/v1/${what}-plans`);
      const asked = redeploymentPlanRequestSchema.parse(await request.json());
      const all = rollouts.at(-1)?.deployments.filter(({ agent }) => asked.agents?.includes(agent) ?? true) ?? [];
      const last = what === "retry" ? all.filter(({ state }) => isTerminal(state) && state !== "succeeded") : all;
      if (last.length === 0) throw nothingToDo(`${what}`, asked.of);
      const planned = last.map(({ id: deployment, agent, rollout, contact, storePath, previousPath }) => ({
        ...{ agent, contact, deployment, rollout, from: what === "rollback" ? storePath : previousPath },
        ...{ to: what === "rollback" ? (previousPath ?? storePath) : storePath, diff: null, why: "it is an example" },
      }));
      return Response.json(againPlanSchema.parse({ ...fake.plan, agents: planned }));
    }),
    route("POST", "/api/v1/cancellations", async (request) => {
      const asked = cancellationSchema.parse(await request.json());
      const live = rollouts.at(-1)?.deployments.filter(({ state }) => !isTerminal(state)) ?? [];
      if (live.length === 0) throw nothingToDo("cancel", asked.of);
      const after = live.map(
        (each): DeploymentDto =>
          each.state === "queued" ? { ...each, state: "cancelled" } : { ...each, stopRequested: "cancelled" },
      );
      return Response.json({ deployments: after });
    }),
    route("GET", "/api/v1/rollouts/(\\w+)", (_request, _url, [, id]) => {
      const rollout = rollouts.find((each) => each.id === id);
      if (rollout === undefined) throw new NixdeployError("not-found", `cannot find the rollout ${id}`);
      return Response.json(rollout);
    }),
    route("GET", "/api/v1/deployments", (_request, url) => {
      const agent = url.searchParams.get("agent");
      const all = rollouts.flatMap((rollout) => rollout.deployments).reverse();
      return Response.json({ deployments: all.filter((each) => agent === null || each.agent === agent) });
    }),
    route("GET", "/api/v1/deployments/(\\w+)", (_request, _url, [, id]) => {
      const deployment = findDeployment(id ?? "");
      if (deployment === undefined) throw new NixdeployError("not-found", `cannot find the deployment ${id}`);
      return Response.json(deployment);
    }),
    route("GET", "/api/v1/deployments/(\\w+)/log", (_request, url, [, id]) => {
      const after = Number(url.searchParams.get("after") ?? 0);
      const lines = (logs.get(id ?? "") ?? []).filter(({ n }) => n > after);
      const page = lines.slice(0, 2);
      return Response.json({ lines: page, next: page.length < lines.length ? (page.at(-1)?.n ?? null) : null });
    }),
    route("GET", "/api/v1/(?:rollouts|deployments)/(\\w+)/follow", (request, _url, [, id]) =>
      follow(id ?? "", request),
    ),
  ];

  function describeCache(): CacheDto {
    const publicKeys = ["default:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
    return cacheSchema.parse({
      name: "default",
      workspace: "default",
      url: `${fake.url}/cache/default`,
      publicKeys,
      public: fake.isCachePublic,
      default: true,
    });
  }

  function checkAgents(asked: z.output<typeof createRolloutSchema>): void {
    const faults = Object.keys(asked.agents).flatMap((name) =>
      agents.some((agent) => agent.name === name) ? [] : [`agent ${name}: no such agent in workspace default`],
    );
    if (faults.length > 0)
      throw new NixdeployError("refused", "cannot start the rollout: refused", { details: faults });
  }

  function createRollout(asked: z.output<typeof createRolloutSchema>): RolloutDto {
    checkAgents(asked);
    const rollout = drawId(systemRandom);
    const deployments = Object.entries(asked.agents).map(([agent, storePath]) => {
      const id = drawId(systemRandom);
      const contact = agents.find((each) => each.name === agent)?.contact;
      const names = { id, rollout, agent, workspace: "default", storePath, previousPath: null, mode: asked.mode };
      const facts = { closureSizeBytes: 1, fetchedBytes: null, exitCode: null, phaseMs: {}, reason: null };
      const times = { createdAt: AT, startedAt: null, finishedAt: null };
      return deploymentSchema.parse({
        ...names,
        ...facts,
        ...times,
        state: "queued",
        contact,
        url: `${fake.url}/d/${id}`,
      });
    });
    const description = asked.description ?? null;
    const url = `${fake.url}/r/${rollout}`;
    const { origin } = asked;
    return rolloutSchema.parse({
      id: rollout,
      workspace: "default",
      createdAt: AT,
      description,
      origin,
      url,
      deployments,
    });
  }

  async function answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    for (const { method, path, handle } of routes) {
      const match = path.exec(url.pathname);
      if (match === null || request.method !== method) continue;
      const isAllowed =
        options.socketPath !== undefined ||
        url.pathname === "/healthz" ||
        request.headers.get("authorization") === `Bearer ${FAKE_TOKEN}`;
      if (!isAllowed) return problem(new NixdeployError("denied", "cannot log in: the token is not valid"));
      try {
        return await handle(request, url, match);
      } catch (error) {
        if (error instanceof NixdeployError) return problem(error);
        throw error;
      }
    }
    return problem(new NixdeployError("not-found", `cannot find ${url.pathname}`));
  }

  async function fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const seen: SeenRequest = {
      method: request.method,
      path: url.pathname + url.search,
      authorization: request.headers.get("authorization"),
      lastEventId: request.headers.get("last-event-id"),
      idempotencyKey: request.headers.get("idempotency-key"),
    };
    requests.push(seen);
    const next = () => answer(request);
    return fake.intercept === null ? await next() : await fake.intercept(seen, next);
  }

  const serve = () =>
    options.socketPath === undefined
      ? Bun.serve({ port, hostname: "127.0.0.1", idleTimeout: 0, development: false, fetch })
      : Bun.serve({ unix: options.socketPath, fetch });
  let server: Bun.Server<undefined> | null = null;

  const stop = async () => {
    const stopped = server?.stop(true);
    followers.clear();
    server = null;
    await stopped;
  };

  const fake: FakeCoordinator = {
    get url() {
      return `http://127.0.0.1:${port}`;
    },
    cache,
    requests,
    tokens,
    rollouts,
    rolloutRequests,
    isCachePublic: false,
    now: () => new Date().toISOString(),
    intercept: null,
    plan: null,
    addAgent: (name, contact = "online", facts = {}) => agents.push(createAgent(name, contact, facts)),
    deploymentOf,
    setDeployment(agent, change) {
      const before = deploymentOf(agent);
      const after = deploymentSchema.parse({ ...before, ...change });
      const finishedAt = isTerminal(after.state) ? AT_END : null;
      const data = deploymentSchema.parse({ ...after, startedAt: AT, finishedAt });
      const rollout = rollouts.at(-1);
      if (rollout === undefined) throw new Error("no rollout yet");
      const deployments = rollout.deployments.map((each) => (each.id === data.id ? data : each));
      rollouts[rollouts.length - 1] = { ...rollout, deployments };
      emit([data.id, data.rollout], { event: "deployment", data });
      for (const topic of [data.id, data.rollout]) {
        if (isOver(topic)) emit([topic], { event: "end", data: {} });
      }
    },
    appendLog(agent, ...texts) {
      const { id, rollout, agent: name } = deploymentOf(agent);
      const log = logs.get(id) ?? [];
      const lines = texts.map((text, index) => ({ n: log.length + index + 1, at: AT, stream: "out" as const, text }));
      logs.set(id, [...log, ...lines]);
      emit([id, rollout], { event: "log", data: { deployment: id, agent: name, lines } });
    },
    sendProgress(agent, progress) {
      const { id, rollout, agent: name } = deploymentOf(agent);
      emit([id, rollout], { event: "progress", data: { deployment: id, agent: name, ...progress } });
    },
    get followers() {
      return followers.size;
    },
    cutConnections() {
      void stop();
      this.start();
    },
    stop,
    start() {
      server = serve();
      port = server.port ?? 0;
    },
    async [Symbol.asyncDispose]() {
      await this.stop();
    },
  };
  fake.start();
  return fake;
}

function route(method: string, path: string, handle: Handler): Route {
  return { method, path: new RegExp(`^${path}$`), handle };
}

function formatEvent(id: number, event: FollowEvent): string {
  return `id: ${id}\nevent: ${event.event}\ndata: ${JSON.stringify(event.data)}\n\n`;
}

/** The answer for an error, as the coordinator writes it. */
export function problem(error: NixdeployError): Response {
  const status = toHttpStatus(error.kind);
  return Response.json(
    { title: error.message, status, hint: error.hint, ...(error.details.length > 0 ? { errors: error.details } : {}) },
    { status, headers: { "content-type": "application/problem+json" } },
  );
}

function createAgent(
  name: string,
  contact: AgentDto["contact"],
  facts: Partial<Record<keyof AgentDto, unknown>>,
): AgentDto {
  return agentSchema.parse({
    name,
    workspace: "default",
    contact,
    lastSeenAt: AT,
    registeredAt: AT,
    agentVersion: "0.1.0",
    nixVersion: "2.18.1",
    system: "x86_64-linux",
    hostName: `${name}.example`,
    profile: "/nix/var/nix/profiles/system",
    keyFingerprint: "SHA256:AAAA",
    profilePath: null,
    generation: null,
    currentPath: null,
    bootedPath: null,
    storeFreeBytes: null,
    deployment: null,
    ...facts,
  });
}
