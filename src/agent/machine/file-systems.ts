/**
 * Makes durable what others wrote: Nix, which does not sync the files of store paths (`fsync-store-paths` is off and
 * young) nor the links of profiles, and the scripts of a system. Without it a power cut within half a minute leaves valid
 * paths with empty files, and a profile that names what it named before, although the outcome was told.
 *
 * By coreutils' `sync --file-system`, which is syncfs(2), in a process of its own: on a slow disk it takes a while, and
 * a call from here would stop everything that we do meanwhile. Never `sync` alone on Linux: it would wait for every
 * network mount of the machine, too.
 */
import { existsSync } from "node:fs";
import { NixdeployError } from "../../errors.ts";
import type { Clock } from "../../runtime.ts";
import type { RunProgram } from "./process.ts";
import { describeExit, isSuccess } from "./program-exit.ts";

export type SyncOptions = {
  /** Paths in the file systems; those that do not exist are left out. */
  readonly places: readonly string[];
  readonly run: RunProgram;
  readonly environment: Readonly<Record<string, string>>;
  readonly clock: Clock;
};

/** Where Nix keeps contents, and where links and its database. */
export const STORE_PLACES = ["/nix/store", "/nix/var/nix"] as const;

const SYNC_MAX_MS = 10 * 60_000;

/** Durable on return. @throws NixdeployError("host") */
export async function syncFileSystems({ places, run, environment, clock }: SyncOptions): Promise<void> {
  const found = places.filter((place) => existsSync(place));
  if (found.length === 0) return;
  let output = "";
  const exit = await run({
    command: "sync",
    // macOS can sync everything or nothing.
    args: process.platform === "linux" ? ["-f", ...found] : [],
    environment,
    clock,
    deadlineMs: SYNC_MAX_MS,
    onLine: async (_stream, text) => {
      output ||= `: ${text}`;
    },
  });
  if (isSuccess(exit)) return;
  const what = `cannot write to the disk what was written to ${found.join(", ")}`;
  if (exit.kind === "not-started") {
    const hint = "Put the program sync (of coreutils) on the PATH of the agent.";
    throw new NixdeployError("host", `${what}: sync ${describeExit(exit)}`, { hint });
  }
  throw new NixdeployError("host", `${what}: sync ${describeExit(exit)}${output}`);
}
