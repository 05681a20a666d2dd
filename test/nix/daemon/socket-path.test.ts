/** Where the daemon's socket is looked for: what Nix's own variables say, in Nix's own order. */
import { expect, test } from "bun:test";
import { connectDaemon, daemonSocketPath } from "../../../src/nix/daemon/connect.ts";

const table: readonly { readonly environment: Record<string, string>; readonly path: string | null }[] = [
  { environment: {}, path: "/nix/var/nix/daemon-socket/socket" },
  { environment: { NIX_STATE_DIR: "/state" }, path: "/state/daemon-socket/socket" },
  { environment: { NIX_STATE_DIR: "/state", NIX_DAEMON_SOCKET_PATH: "/run/d" }, path: "/run/d" },
  { environment: { NIX_DAEMON_SOCKET_PATH: "", NIX_STATE_DIR: "" }, path: "/nix/var/nix/daemon-socket/socket" },
  { environment: { NIX_REMOTE: "" }, path: "/nix/var/nix/daemon-socket/socket" },
  { environment: { NIX_REMOTE: "auto" }, path: "/nix/var/nix/daemon-socket/socket" },
  { environment: { NIX_REMOTE: "daemon", NIX_DAEMON_SOCKET_PATH: "/run/d" }, path: "/run/d" },
  { environment: { NIX_REMOTE: "unix://", NIX_DAEMON_SOCKET_PATH: "/run/d" }, path: "/run/d" },
  { environment: { NIX_REMOTE: "unix:///run/e", NIX_DAEMON_SOCKET_PATH: "/run/d" }, path: "/run/e" },
  { environment: { NIX_REMOTE: "unix:///run/e?root=/mnt" }, path: "/run/e" },
  { environment: { NIX_REMOTE: "local" }, path: null },
  { environment: { NIX_REMOTE: "local?root=/mnt" }, path: null },
];

test.each(table)("$environment", ({ environment, path }) => {
  expect(daemonSocketPath(environment)).toBe(path);
});

test("the socket alone cannot be asked for where NIX_REMOTE names another store", async () => {
  const { signal } = new AbortController();
  const connecting = connectDaemon({ signal, via: "socket", environment: { NIX_REMOTE: "local?root=/mnt" } });
  await expect(connecting).rejects.toThrow("NIX_REMOTE names another store");
});
