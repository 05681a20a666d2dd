/**
 * A whole coordinator in the test's process: real database (in memory or in a file), real blob store in a temporary
 * directory, a clock that the test moves. Requests go in by function call; `test/server/listener.test.ts` has the ports.
 *
 * When it is disposed it complains of everything that the coordinator itself called a bug.
 */
import { mkdir } from "node:fs/promises";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { type CreatedToken, createdTokenSchema } from "../../src/api/tokens.ts";
import { createHttpClient } from "../../src/http/client.ts";
import type { LogFields, Logger } from "../../src/log.ts";
import { drawId, parseCacheName } from "../../src/names.ts";
import { formatHashNix32 } from "../../src/nix/hash.ts";
import { systemRandom } from "../../src/runtime.ts";
import { openBlobStore } from "../../src/server/cache/blob-store.ts";
import { type Coordinator, createCoordinator } from "../../src/server/coordinator.ts";
import { findCache } from "../../src/server/database/caches.ts";
import { openConnection, useConnection } from "../../src/server/database/dialect.ts";
import { insertNar } from "../../src/server/database/paths.ts";
import type { CoordinatorDatabase } from "../../src/server/database/schema.ts";
import type { TokenKind } from "../../src/token.ts";
import { NIXDEPLOY_VERSION } from "../../src/version.ts";
import { createAnswerCheck } from "./api-conformance.ts";
import { createManualClock, type ManualClock } from "./manual-clock.ts";
import { type AgentIdentity, createAgentIdentity, openScriptedAgent, type ScriptedAgent } from "./scripted-agent.ts";
import { createTemporaryDirectory } from "./temporary-directory.ts";
import type { TinyPath } from "./tiny-path.ts";
import { watchConnection } from "./watched-connection.ts";

type RequestBody = Uint8Array | string | ReadableStream<Uint8Array>;

export type RequestOptions = {
  readonly method?: string;
  /** Sent as JSON, POST unless another method is given. */
  readonly json?: unknown;
  readonly body?: RequestBody;
  /** Default: the admin token. Null: none. */
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
};

export type LoggedLine = { readonly level: keyof Logger; readonly message: string; readonly fields: LogFields };

export type TestCoordinator = AsyncDisposable & {
  readonly coordinator: Coordinator;
  readonly clock: ManualClock;
  readonly adminToken: string;
  readonly directory: string;
  readonly logged: LoggedLine[];
  /** A request below `/api/v1`; a path with a leading slash is taken as it is. */
  fetch(path: string, options?: RequestOptions): Promise<Response>;
  createToken(kind: TokenKind, options?: { readonly expiresInMs?: number }): Promise<CreatedToken>;
  /** Uploads and publishes, in one call each. */
  push(...paths: readonly TinyPath[]): Promise<void>;
  /** Publishes as if the NARs had been uploaded: quicker, where nobody fetches them. */
  publishUnseen(...paths: readonly TinyPath[]): Promise<void>;
  /** Sends a NAR as one part. */
  upload(path: TinyPath, changes?: UploadChanges): Promise<Response>;
  /** Starts a rollout of one path to agents. */
  activate(path: TinyPath, ...agents: readonly string[]): Promise<StartedRollout>;
  /** A new agent, or a known one that returns, connected and logged in. */
  connectAgent(agent: string | AgentIdentity, hello?: Parameters<ScriptedAgent["login"]>[0]): Promise<ScriptedAgent>;
  /** The coordinator is gone as by kill -9; another one begins on the same files. Needs `database: "file"`. */
  restart(): Promise<void>;
};

export type UploadChanges = {
  readonly upload?: string;
  readonly offset?: number;
  readonly body?: RequestBody;
  readonly narHash?: string;
  readonly narSizeBytes?: number;
  /** Null: this is not the last part. */
  readonly fileHash?: string | null;
  readonly cache?: string;
  readonly token?: string;
};

export type StartedRollout = ReturnType<typeof rolloutSchema.parse>;

export type TestCoordinatorOptions = {
  readonly database?: "memory" | "file";
  readonly clock?: ManualClock;
  /** The coordinator's release; default: this one. */
  readonly version?: string;
  /** Told of every statement of the database; what it throws is what the statement throws. */
  readonly beforeStatement?: (text: string) => void;
  /** What stands between coordinator and disk. */
  readonly wrapBlobs?: (blobs: Awaited<ReturnType<typeof openBlobStore>>) => typeof blobs;
};

export async function createTestCoordinator(options: TestCoordinatorOptions = {}): Promise<TestCoordinator> {
  const temporary = await createTemporaryDirectory("coordinator");
  const clock = options.clock ?? createManualClock();
  const logged: LoggedLine[] = [];
  const killed: Coordinator[] = [];
  let adminToken = "";
  const start = async () =>
    await startOne({ ...options, clock, logged, directory: temporary.path }, (token) => {
      adminToken = token;
    });
  let current = await start();
  const checkAnswer = createAnswerCheck(current.services);
  const request = async (path: string, how: RequestOptions = {}) => {
    const sent = toRequest(path, { token: adminToken, ...how });
    const answer = await current.fetch(sent, { control: false });
    await checkAnswer(sent, answer);
    return answer;
  };
  return {
    clock,
    logged,
    directory: temporary.path,
    get coordinator() {
      return current;
    },
    get adminToken() {
      return adminToken;
    },
    fetch: request,
    ...createShortcuts(request, () => current),
    async restart() {
      killed.push(current);
      current = await start();
    },
    async [Symbol.asyncDispose]() {
      for (const dead of killed) await dead[Symbol.asyncDispose]();
      await current[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
      const bugs = logged.filter(({ level }) => level === "error");
      // Printed too, since an error on the way out hides the one that a failed test threw.
      for (const bug of bugs) console.error(bug);
      if (bugs.length > 0) throw new Error(`the coordinator logged errors: ${JSON.stringify(bugs)}`);
    },
  };
}

type Fetch = TestCoordinator["fetch"];

async function startOne(
  options: TestCoordinatorOptions & {
    readonly clock: ManualClock;
    readonly logged: LoggedLine[];
    readonly directory: string;
  },
  onAdminToken: (token: string) => void,
): Promise<Coordinator> {
  const { directory } = options;
  await mkdir(`${directory}/nars`, { recursive: true });
  const blobs = await openBlobStore(`${directory}/nars`);
  return await createCoordinator({
    database: openTestDatabase(options.database === "file" ? `${directory}/coordinator.db` : ":memory:", options),
    blobs: options.wrapBlobs?.(blobs) ?? blobs,
    http: createHttpClient({ userAgent: "test", env: {}, clock: options.clock, random: systemRandom }),
    clock: options.clock,
    random: systemRandom,
    log: createCapturingLogger(options.logged),
    version: options.version ?? NIXDEPLOY_VERSION,
    isServing: true,
    publicUrl: () => "http://coordinator.test",
    writeAdminToken: async (token) => onAdminToken(token),
  });
}

function openTestDatabase(file: string, { beforeStatement }: TestCoordinatorOptions): CoordinatorDatabase {
  const connection = openConnection(file);
  if (beforeStatement !== undefined) watchConnection(connection, beforeStatement);
  return useConnection(connection);
}

function createShortcuts(fetch: Fetch, coordinator: () => Coordinator) {
  const upload: TestCoordinator["upload"] = async (path, changes = {}) => {
    const query = new URLSearchParams({
      upload: changes.upload ?? drawId(systemRandom),
      offset: String(changes.offset ?? 0),
      narSize: String(changes.narSizeBytes ?? path.nar.length),
    });
    const fileHash = changes.fileHash === undefined ? formatHashNix32(path.fileHash) : changes.fileHash;
    if (fileHash !== null) query.set("fileHash", fileHash);
    const narHash = changes.narHash ?? formatHashNix32(path.narHash);
    return await fetch(`caches/${changes.cache ?? "default"}/nars/${narHash}?${query}`, {
      method: "PUT",
      body: changes.body ?? path.file,
      ...(changes.token === undefined ? {} : { token: changes.token }),
    });
  };
  const createToken: TestCoordinator["createToken"] = async (kind, more = {}) =>
    createdTokenSchema.parse(await jsonOf(await fetch("tokens", { json: { kind, ...more } })));
  const publish = async (paths: readonly TinyPath[]) => {
    const published = paths.map((path) => path.published);
    await expectOk(await fetch("caches/default/paths", { json: { paths: published } }));
  };
  return {
    upload,
    createToken,
    async push(...paths: readonly TinyPath[]) {
      for (const path of paths) await expectOk(await upload(path));
      await publish(paths);
    },
    async publishUnseen(...paths: readonly TinyPath[]) {
      const { database } = coordinator().services;
      const cache = await findCache(database, parseCacheName("default"));
      for (const { narHash, nar, fileHash, file } of paths) {
        await insertNar(database, {
          cache_id: cache?.id ?? "",
          file_hash: fileHash,
          nar_hash: narHash,
          nar_size_bytes: nar.length,
          file_size_bytes: file.length,
          compression: "zstd",
          created_ms: 0,
        });
      }
      await publish(paths);
    },
    async activate(path: TinyPath, ...agents: readonly string[]) {
      const assignments = Object.fromEntries(agents.map((agent) => [agent, path.storePath]));
      const answer = await fetch("rollouts", { json: { agents: assignments, mode: "switch" } });
      return rolloutSchema.parse(await jsonOf(await expectOk(answer)));
    },
    async connectAgent(agent: string | AgentIdentity, hello: Parameters<ScriptedAgent["login"]>[0] = {}) {
      const isNew = typeof agent === "string";
      const identity = isNew ? createAgentIdentity(agent) : agent;
      const enrolment = isNew ? { enrolmentToken: (await createToken("agent")).token } : {};
      const scripted = openScriptedAgent(coordinator(), identity);
      await scripted.login({ ...enrolment, ...hello });
      const last = scripted.received.find((frame) => frame.kind !== "challenge");
      if (last?.kind !== "welcome") throw new Error(`${identity.name} was not welcomed: ${JSON.stringify(last)}`);
      return scripted;
    },
  };
}

export function toRequest(path: string, options: RequestOptions): Request {
  const headers = new Headers(options.headers);
  if (options.token !== null && options.token !== undefined) headers.set("authorization", `Bearer ${options.token}`);
  if (options.json !== undefined) headers.set("content-type", "application/json");
  return new Request(`http://coordinator.test${path.startsWith("/") ? path : `/api/v1/${path}`}`, {
    method: options.method ?? (options.json === undefined ? "GET" : "POST"),
    headers,
    body: options.json === undefined ? (options.body ?? null) : JSON.stringify(options.json),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
}

/** @throws Error with the answer's text unless it is 2xx */
export async function expectOk(response: Response): Promise<Response> {
  if (!response.ok) throw new Error(`answer ${response.status}: ${await response.text()}`);
  return response;
}

async function jsonOf(response: Response): Promise<unknown> {
  return await response.json();
}

function createCapturingLogger(logged: LoggedLine[]): Logger {
  const at =
    (level: keyof Logger) =>
    (message: string, fields: LogFields = {}) => {
      logged.push({ level, message, fields });
    };
  return { error: at("error"), warn: at("warn"), info: at("info"), debug: at("debug") };
}
