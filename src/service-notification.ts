/**
 * Tells the service manager that started us how far we are: sd_notify(3), one datagram to the socket that it named in
 * NOTIFY_SOCKET. With `Type=notify` systemd then counts a start as done when we are ready, and not before.
 *
 * Where nobody asked, nothing is done. Bun has no unix datagram sockets, so this is libc's (Linux alone has systemd).
 */
import { fromCLibrary } from "./c-library.ts";
import { describeError } from "./errors.ts";
import type { Logger } from "./log.ts";

export type ServiceState = "ready" | "stopping" | "alive";

const MESSAGES = { ready: "READY=1\n", stopping: "STOPPING=1\n", alive: "WATCHDOG=1\n" } as const satisfies Record<
  ServiceState,
  string
>;

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** sun_path, with the NUL at its end. */
const PATH_BYTES_MAX = 108;

const findLibrary = fromCLibrary("notify the service manager", {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64" },
  close: { args: ["i32"], returns: "i32" },
});

/** Never throws: a service that works is better than one that could say so. */
export function notifyServiceManager(options: {
  readonly state: ServiceState;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
}): void {
  const socket = options.environment["NOTIFY_SOCKET"] ?? "";
  if (socket === "" || process.platform !== "linux") return;
  try {
    const address = encodeSocketAddress(socket);
    if (address === null) throw new Error("it is neither an absolute path nor an abstract name");
    sendDatagram(address, new TextEncoder().encode(MESSAGES[options.state]));
  } catch (error) {
    const why = describeError(error);
    options.log.warn(`cannot tell the service manager at ${socket} (NOTIFY_SOCKET) "${options.state}": ${why}`);
  }
}

/**
 * How often the service manager wants to hear that we are alive (WATCHDOG_USEC of sd_watchdog_enabled(3)): half of the
 * time after which it ends us. Null where it does not want to, or means another process.
 */
export function watchdogIntervalMs(
  environment: Readonly<Record<string, string | undefined>>,
  processId: number,
): number | null {
  const { WATCHDOG_USEC: limit = "", WATCHDOG_PID: pid } = environment;
  if (!/^[1-9]\d{0,15}$/.test(limit)) return null;
  if (pid !== undefined && pid !== String(processId)) return null;
  return Number(limit) / 1_000 / 2;
}

/**
 * A `struct sockaddr_un` of Linux: family (host's byte order, which is little endian wherever we run), then the path
 * with a NUL at its end, or the name with a NUL before it for `@…`.
 * @returns null for what is neither, or too long
 */
export function encodeSocketAddress(socket: string): Uint8Array<ArrayBuffer> | null {
  const isAbstract = socket.startsWith("@");
  if (!isAbstract && !socket.startsWith("/")) return null;
  if (socket.includes("\0")) return null;
  const name = new TextEncoder().encode(isAbstract ? `\0${socket.slice(1)}` : `${socket}\0`);
  if (name.length > PATH_BYTES_MAX || name.length < 2) return null;
  return new Uint8Array([AF_UNIX, 0, ...name]);
}

/** @throws Error when nobody takes it */
function sendDatagram(address: Uint8Array<ArrayBuffer>, message: Uint8Array<ArrayBuffer>): void {
  const libc = findLibrary();
  const descriptor = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) throw new Error("it makes no unix sockets");
  try {
    const sent = libc.sendto(descriptor, message, message.length, MSG_NOSIGNAL, address, address.length);
    if (Number(sent) !== message.length) throw new Error("the socket does not take it");
  } finally {
    libc.close(descriptor);
  }
}
