/** The default directories (README, "Files"): root keeps state under /var/lib, everyone else under XDG_STATE_HOME. */
import { homedir } from "node:os";
import { join } from "node:path";
import type { Environment } from "./context.ts";

const ROOT_STATE = "/var/lib/nixdeploy";

/** The coordinator's data directory. */
export function resolveDataDirectory(env: Environment): string {
  return join(resolveStateRoot(env), "server");
}

/** The folder below which nixdeploy keeps state. */
export function resolveStateRoot(env: Environment): string {
  if (process.getuid?.() === 0) return ROOT_STATE;
  return join(env["XDG_STATE_HOME"] || join(homedir(), ".local/state"), "nixdeploy");
}
