/** What the service manager is told: one datagram, which a real socket of the kernel's receives here. */
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { encodeSocketAddress, notifyServiceManager, watchdogIntervalMs } from "../src/service-notification.ts";
import { createTemporaryDirectory } from "./support/temporary-directory.ts";

const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000;

/** A receiver like systemd's, in this process. */
function listenAt(socket: string) {
  const libc = dlopen("libc.so.6", {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
    recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  }).symbols;
  const descriptor = libc.socket(AF_UNIX, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0);
  const address = new Uint8Array([AF_UNIX, 0, ...Buffer.from(socket.replace("@", "\0"))]);
  expect(libc.bind(descriptor, address, address.length)).toBe(0);
  return {
    receive: () => {
      const buffer = new Uint8Array(100);
      const length = Number(libc.recv(descriptor, buffer, buffer.length, 0));
      return length < 0 ? null : Buffer.from(buffer.subarray(0, length)).toString();
    },
    [Symbol.dispose]: () => void libc.close(descriptor),
  };
}

function collectWarnings() {
  const warnings: string[] = [];
  const silent = () => {};
  const log = { error: silent, warn: (text: string) => void warnings.push(text), info: silent, debug: silent };
  return { log, warnings };
}

test("each state is one datagram, to a path and to an abstract name", async () => {
  await using directory = await createTemporaryDirectory("notify");
  for (const socket of [directory.join("socket"), `@nixdeploy-test-${process.pid}`]) {
    using receiver = listenAt(socket);
    const { log, warnings } = collectWarnings();
    const environment = { NOTIFY_SOCKET: socket };
    notifyServiceManager({ state: "ready", environment, log });
    notifyServiceManager({ state: "stopping", environment, log });
    expect([receiver.receive(), receiver.receive(), receiver.receive()]).toEqual(["READY=1\n", "STOPPING=1\n", null]);
    expect(warnings).toEqual([]);
  }
});

test("nothing is said where nobody asked", () => {
  const { log, warnings } = collectWarnings();
  for (const environment of [{}, { NOTIFY_SOCKET: "" }]) notifyServiceManager({ state: "ready", environment, log });
  expect(warnings).toEqual([]);
});

test.each([
  ["nobody listens", "/nonexistent/notify", /does not take it/],
  ["it is no address", "vsock:2:1234", /neither an absolute path nor an abstract name/],
])("a socket that does not work is a warning, never an error: %s", (_what, socket, why) => {
  const { log, warnings } = collectWarnings();
  notifyServiceManager({ state: "ready", environment: { NOTIFY_SOCKET: socket }, log });
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain(`cannot tell the service manager at ${socket} (NOTIFY_SOCKET) "ready"`);
  expect(warnings[0]).toMatch(why);
});

test.each([
  ["/run/a", [1, 0, ...Buffer.from("/run/a"), 0]],
  ["@a", [1, 0, 0, 97]],
  ["@", null],
  ["", null],
  ["run/a", null],
  ["/a\0b", null],
  [`/${"a".repeat(106)}`, [1, 0, ...Buffer.from(`/${"a".repeat(106)}`), 0]],
  [`/${"a".repeat(107)}`, null],
  [`@${"a".repeat(107)}`, [1, 0, 0, ...Buffer.from("a".repeat(107))]],
  [`@${"a".repeat(108)}`, null],
])("the address of %j", (socket, expected) => {
  const address = encodeSocketAddress(socket);
  expect(address === null ? null : [...address]).toEqual(expected);
});

test.each([
  [{ WATCHDOG_USEC: "60000000" }, 30_000],
  [{ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "7" }, 30_000],
  [{ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "8" }, null],
  [{ WATCHDOG_USEC: "0" }, null],
  [{ WATCHDOG_USEC: "soon" }, null],
  [{}, null],
])("who is asked to say that it is alive, says so in time: %p", (environment, intervalMs) => {
  expect(watchdogIntervalMs(environment, 7)).toBe(intervalMs);
});
