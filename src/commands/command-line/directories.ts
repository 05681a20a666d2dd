/** The default directories (README, "Files"): root keeps state under /var/lib, everyone else under XDG_STATE_HOME. */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { NixdeployError } from "../../errors.ts";
import type { Environment } from "./context.ts";

const ROOT_STATE = "/var/lib/nixdeploy";

/** The coordinator's data directory. */
export function resolveDataDirectory(env: Environment): string {
  return join(resolveStateRoot(env), "server");
}

/** The folder below which nixdeploy keeps state. */
export function resolveStateRoot(env: Environment): string {
  if (process.getuid?.() === 0) return ROOT_STATE;
  const stateHome = env["XDG_STATE_HOME"] ?? "";
  // A relative one counts as not set: that is how the XDG specification has it.
  return join(isAbsolute(stateHome) ? stateHome : join(resolveHome(env), ".local/state"), "nixdeploy");
}

/**
 * The home directory: HOME, else what the system's list of users says.
 * @throws NixdeployError "usage" when that is not an absolute path
 */
export function resolveHome(env: Environment): string {
  const home = env["HOME"] || homedir();
  if (isAbsolute(home)) return home;
  throw new NixdeployError("usage", "cannot find the home directory: HOME is not an absolute path", {
    hint: "Correct HOME, or name the directories yourself (see --help).",
  });
}
