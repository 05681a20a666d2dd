/**
 * The ports of a coordinator: HTTP (or HTTPS) for everyone and the control socket for its own user. Turns Bun's
 * websockets into agent sessions.
 */
import { chmodSync, rmSync } from "node:fs";
import type { Server, ServerWebSocket, WebSocketHandler } from "bun";
import { describeError, NixdeployError } from "../errors.ts";
import { formatGoodbye } from "../goodbye.ts";
import { AGENT_CONNECT_PATH, FRAME_BYTES_MAX, PEER_SILENCE_MAX_MS } from "../protocol.ts";
import { systemClock } from "../runtime.ts";
import type { AgentSession, AgentSocket } from "./agents/session.ts";
import type { Coordinator } from "./coordinator.ts";
import { openPort, type StartServer, type TlsPair } from "./port.ts";
import { formatProblem } from "./problem.ts";
import type { Visit } from "./requests/visit.ts";
import type { CacheFileRoutes } from "./routes/cache-files.ts";

export type ListenOptions = {
  readonly hostname: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls: TlsPair | null;
  readonly controlSocket: string;
};

export type Listener = AsyncDisposable & {
  /** `http://127.0.0.1:8470` */
  readonly url: string;
  /** New connections get this pair. @throws when it cannot be used; nothing has changed then */
  replaceTls(pair: TlsPair): void;
};

type Connection = { session: AgentSession | null; visit: Visit | null };

const OWNER_ONLY = 0o600;
/** What may wait for a slow agent before its connection is given up; it resumes where it was acknowledged. */
const BACKPRESSURE_BYTES_MAX = 8 * 1024 * 1024;
const CLOSE_GOING_AWAY = 1001;
/**
 * Uploads, downloads and followers take as long as they take; websockets have a limit of their own below. A bare object,
 * because Bun heeds this for Unix sockets too (10 s without it) but its types do not know.
 */
const NO_IDLE_TIMEOUT: object = { idleTimeout: 0 };
/** By default Bun answers what it cannot send with a page that shows our source. */
const ANSWERS_TO_FAILURES = {
  development: false,
  error: () => formatProblem({ title: "The coordinator failed to answer", status: 500 }),
} as const;
/** Bun makes a request's URL of what the Host header says, whatever that is. */
const NOT_A_URL = () => formatProblem({ title: "Host and target make no URL", status: 400 });

/** @throws NixdeployError `host` when the port or the socket cannot be had */
export function listen(coordinator: Coordinator, options: ListenOptions): Listener {
  const connections = new Set<ServerWebSocket<Connection>>();
  const start: StartServer<Connection> = ({ port, tls, reusePort }) =>
    Bun.serve<Connection, keyof CacheFileRoutes>({
      hostname: options.hostname,
      port,
      ...(tls === null ? {} : { tls: { cert: tls.cert, key: tls.key } }),
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      reusePort,
      ...NO_IDLE_TIMEOUT,
      ...ANSWERS_TO_FAILURES,
      routes: coordinator.cacheFileRoutes,
      fetch: async (request, bun) => {
        const url = URL.parse(request.url);
        if (url === null) return NOT_A_URL();
        const arrival = { control: false, peer: bun.requestIP(request)?.address ?? null };
        if (url.pathname === AGENT_CONNECT_PATH) return upgrade(request, bun, coordinator.greet(request, arrival));
        return await coordinator.fetch(request, arrival);
      },
      websocket: agentWebsocket(coordinator, connections),
    });
  const port = bind(`${options.hostname}:${options.port}`, () => openPort(start, options));
  const control = bindControlSocket(coordinator, options.controlSocket);
  return {
    url: port.url,
    replaceTls: (pair) => port.replaceTls(pair),
    async [Symbol.asyncDispose]() {
      port.stopListening();
      coordinator.beginStop();
      const goodbye = formatGoodbye("the coordinator stops", planReturn(connections.size));
      for (const connection of connections) connection.close(CLOSE_GOING_AWAY, goodbye);
      await withinTime(coordinator.idle());
      await systemClock.sleep(FLUSH_MS, NEVER);
      await Promise.all([port.close(), control.stop(true)]);
      rmSync(options.controlSocket, { force: true });
    },
  };
}

/** Agents that can log in each second, by what a small machine does. */
const LOGINS_PER_SECOND = 500;
const RETURN_MAX_S = 60;
/** Requests that are being answered get so long to be. */
const STOP_MAX_MS = 5_000;
/** For the ends of answers and streams to leave: Bun does not say when they have. */
const FLUSH_MS = 100;
const NEVER = new AbortController().signal;

/** Within how many seconds agents are asked to be back, so that all of them do not come at once. Pure. */
export function planReturn(agents: number): number {
  return Math.min(RETURN_MAX_S, Math.max(1, Math.ceil(agents / LOGINS_PER_SECOND)));
}

/** Waits for it, but not for ever. Real time: what is waited for is the network. */
async function withinTime(done: Promise<void>): Promise<void> {
  const stopped = new AbortController();
  const late = systemClock.sleep(STOP_MAX_MS, stopped.signal).catch(() => {
    // Done in time.
  });
  await Promise.race([done, late]);
  stopped.abort(new Error("done"));
}

const LISTEN_REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "it is in use",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "this user may not use that port",
};

function bind<Value>(where: string, start: () => Value): Value {
  try {
    return start();
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const why = LISTEN_REASONS[code] ?? describeError(cause);
    const inUse = code === "EADDRINUSE";
    throw new NixdeployError("host", `cannot listen on ${where}: ${why}`, {
      cause,
      hint: inUse ? "Another program has it; choose another one with --listen." : "Choose another one with --listen.",
    });
  }
}

function bindControlSocket(coordinator: Coordinator, path: string) {
  try {
    rmSync(path, { force: true });
    const control = Bun.serve({
      unix: path,
      ...NO_IDLE_TIMEOUT,
      ...ANSWERS_TO_FAILURES,
      fetch: async (request) =>
        URL.canParse(request.url) ? await coordinator.fetch(request, { control: true }) : NOT_A_URL(),
    });
    chmodSync(path, OWNER_ONLY);
    return control;
  } catch (cause) {
    throw new NixdeployError("host", `cannot make the control socket ${path}: ${describeError(cause)}`, { cause });
  }
}

/** @returns undefined once the request has become a websocket: Bun then answers it by itself */
function upgrade(request: Request, server: Server<Connection>, visit: Visit): Response | undefined {
  if (server.upgrade(request, { data: { session: null, visit } })) return undefined;
  return formatProblem({ title: "Agents connect here by websocket", status: 426 }, { upgrade: "websocket" });
}

function agentWebsocket(
  coordinator: Coordinator,
  connections: Set<ServerWebSocket<Connection>>,
): WebSocketHandler<Connection> {
  return {
    maxPayloadLength: FRAME_BYTES_MAX,
    idleTimeout: PEER_SILENCE_MAX_MS / 1000,
    backpressureLimit: BACKPRESSURE_BYTES_MAX,
    closeOnBackpressureLimit: true,
    perMessageDeflate: false,
    open(socket) {
      connections.add(socket);
      const { visit } = socket.data;
      // Its login needs it, and nobody after that: there are ten thousand.
      socket.data.visit = null;
      socket.data.session = coordinator.openAgentSession(new BunAgentSocket(socket), visit ?? undefined);
      socket.data.session.open();
    },
    message(socket, message) {
      if (typeof message === "string") return socket.data.session?.receive(message);
      socket.close(1003, "text frames only");
      return undefined;
    },
    async close(socket) {
      connections.delete(socket);
      await socket.data.session?.closed();
    },
  };
}

/** A class for the sake of memory: there are ten thousand of them. */
class BunAgentSocket implements AgentSocket {
  readonly #socket: ServerWebSocket<Connection>;

  constructor(socket: ServerWebSocket<Connection>) {
    this.#socket = socket;
  }

  send(text: string): boolean {
    return this.#socket.send(text) !== 0;
  }

  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
  }
}
