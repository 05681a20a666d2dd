/**
 * Opens a session with the local Nix daemon. Which way: the socket where Nix's own variables say it is, and where
 * nobody listens there, a `nix-daemon --stdio` of our own (single-user Nix, containers, tests without a daemon).
 */
import { describeError, NixdeployError } from "../../errors.ts";
import { type Clock, systemClock } from "../../runtime.ts";
import { DaemonChannel } from "./channel.ts";
import { type DaemonConnection, OpenDaemonConnection } from "./connection.ts";
import { explainFailure } from "./daemon-error.ts";
import { openSession } from "./handshake.ts";
import { openSocketTransport, openStdioTransport, STDIO_PEER } from "./open-transport.ts";
import type { Transport } from "./transport.ts";

/** A daemon opens its database before it answers; more than this is a daemon that hangs. */
const HANDSHAKE_MAX_MS = 30_000;

/** Only its owner may open the store without a daemon. */
const CHILD_DIED_HINT =
  process.getuid?.() === 0
    ? "Run `nix-daemon --stdio` by hand to see what it says."
    : "Start nix-daemon on this machine: without it, nobody but root can use the Nix store.";

const HANGS_UP_HINT = "A daemon hangs up on users who are not in `allowed-users` of its nix.conf; its log says why.";

export type ConnectDaemonOptions = {
  /** Aborting closes the connection, and everything in progress on it throws the signal's reason. */
  readonly signal: AbortSignal;
  /** Default "auto": the socket if somebody listens there, else "stdio"; what NIX_REMOTE names comes first. */
  readonly via?: "socket" | "stdio" | "auto";
  /** Default: see `daemonSocketPath`. */
  readonly socketPath?: string;
  readonly handshakeMaxMs?: number;
  readonly clock?: Clock;
  /** Where Nix's own variables and PATH are looked up. */
  readonly environment: NodeJS.ProcessEnv;
};

/**
 * @throws NixdeployError "host" when there is no daemon, it may not be used, or it is older than Nix 2.8 · the
 * signal's reason
 */
export async function connectDaemon(options: ConnectDaemonOptions): Promise<DaemonConnection> {
  options.signal.throwIfAborted();
  const transport = await openTransport(options);
  const lostHint = transport.peer === STDIO_PEER ? CHILD_DIED_HINT : HANGS_UP_HINT;
  return await connectDaemonOver(transport, { ...options, lostHint });
}

/**
 * Opens a session at the end of a transport, which is closed when that fails.
 * @param options.lostHint for a daemon that hangs up at once
 * @throws as `connectDaemon`
 */
export async function connectDaemonOver(
  transport: Transport,
  options: Pick<ConnectDaemonOptions, "signal" | "clock" | "handshakeMaxMs"> & { readonly lostHint: string },
): Promise<DaemonConnection> {
  const { signal, clock = systemClock, handshakeMaxMs = HANDSHAKE_MAX_MS, lostHint } = options;
  const channel = new DaemonChannel(transport, clock);
  const onAbort = () => channel.destroy(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const session = await channel.within(handshakeMaxMs, openSession(channel));
    return new OpenDaemonConnection({ channel, session, signal });
  } catch (error) {
    await channel.close();
    if (signal.aborted) throw signal.reason;
    throw explainFailure(error, {
      what: `use the Nix daemon at ${channel.peer}`,
      peer: channel.peer,
      lastWords: channel.lastWords(),
      lostHint,
    });
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * Where Nix itself would look for the socket; null when NIX_REMOTE names a store that is behind none of ours, such as
 * `local?root=/mnt`: then `nix-daemon --stdio` opens it.
 */
export function daemonSocketPath(environment: NodeJS.ProcessEnv): string | null {
  const { NIX_REMOTE: remote, NIX_DAEMON_SOCKET_PATH: socketPath, NIX_STATE_DIR: stateDirectory } = environment;
  const [, named] = /^unix:\/\/(\/[^?]*)/.exec(remote ?? "") ?? [];
  if (named !== undefined) return named;
  if (remote && !["auto", "daemon", "unix://"].includes(remote)) return null;
  return socketPath || `${stateDirectory || "/nix/var/nix"}/daemon-socket/socket`;
}

async function openTransport(options: ConnectDaemonOptions): Promise<Transport> {
  const { signal, via = "auto", environment } = options;
  const socketPath = options.socketPath ?? daemonSocketPath(environment);
  if (via === "socket" && socketPath === null) {
    throw new NixdeployError("host", `cannot use the socket of the Nix daemon: NIX_REMOTE names another store`);
  }
  if (via !== "stdio" && socketPath !== null) {
    try {
      return await openSocketTransport({ socketPath, signal });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (via === "socket" || !isNobodyThere(error)) throw explainNoSocket(socketPath, error);
    }
  }
  try {
    // Where nobody listens it is the local store or nothing. Left to choose, Nix would give people other than root a
    // store in their home directory, whose paths do not exist where they say.
    const chosen = via === "auto" && !environment["NIX_REMOTE"] ? { ...environment, NIX_REMOTE: "local" } : environment;
    return await openStdioTransport({ signal, environment: chosen });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    const socketNote = via === "auto" && socketPath !== null ? `nobody listens at ${socketPath}, and ` : "";
    throw new NixdeployError(
      "host",
      `cannot reach Nix: ${socketNote}${STDIO_PEER} does not start: ${describeError(error)}`,
      {
        hint: "Install Nix 2.8 or newer on this machine, or start its nix-daemon.",
        cause: error,
      },
    );
  }
}

const START_HINT = "Start nix-daemon on this machine.";

/** By the system's error code: why, and what to do. */
const noSocketReasons: Readonly<Record<string, readonly [string, string]>> = {
  ENOENT: ["there is no such socket", START_HINT],
  ENOTDIR: ["there is no such socket", START_HINT],
  ECONNREFUSED: ["nobody listens there", START_HINT],
  ECONNRESET: ["the daemon closed the connection (ECONNRESET)", HANGS_UP_HINT],
  EPIPE: ["the daemon closed the connection (EPIPE)", HANGS_UP_HINT],
  EACCES: ["no permission", "Run as a user who may use the Nix daemon."],
};

function isNobodyThere(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "ECONNREFUSED"].includes(errorCode(error));
}

function explainNoSocket(socketPath: string, error: unknown): NixdeployError {
  const [why, hint] = noSocketReasons[errorCode(error)] ?? [describeError(error), START_HINT];
  return new NixdeployError("host", `cannot use the Nix daemon at ${socketPath}: ${why}`, { hint, cause: error });
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
