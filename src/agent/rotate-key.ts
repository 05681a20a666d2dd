/**
 * Gives this device another key, from outside of its agent: makes the next key and waits until the agent, if it runs, has
 * had it registered. The agent sees the file and does the rest (`link/login-with-keys.ts`); one that does not run does
 * it at its next start.
 */
import { join } from "node:path";
import { NixdeployError } from "../errors.ts";
import type { Clock, Random } from "../runtime.ts";
import { findKey, prepareNextKey } from "./link/identity.ts";
import { isLocked } from "./machine/flock.ts";
import { requireOwnDirectory } from "./machine/own-directory.ts";
import { takeTurn } from "./turn.ts";

export type RotatedKey = {
  /** `pending`: the agent does not run, and registers it when it does. */
  readonly state: "registered" | "pending";
  /** Of the new key. */
  readonly fingerprint: string;
};

const LOOK_MS = 250;

/**
 * @throws NixdeployError("not-found") where no agent has run · NixdeployError("unreachable") when the time is up ·
 *   NixdeployError("host") for somebody else's directory, or one that cannot be written
 */
export async function rotateAgentKey(options: {
  readonly stateDirectory: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}): Promise<RotatedKey> {
  const { stateDirectory, timeoutMs, clock, signal } = options;
  await requireOwnDirectory(stateDirectory);
  if ((await findKey(stateDirectory)) === null) {
    throw new NixdeployError("not-found", `cannot give the agent another key: there is none in ${stateDirectory}`, {
      hint: "Name the agent's state directory with --state-dir. An agent makes its first key by itself.",
    });
  }
  // In turn: of two that are made at once, the agent could register one and keep the other.
  const { publicKey, fingerprint } = await takeTurn(options, () => prepareNextKey(options));
  const untilMs = clock.monotonicMs() + timeoutMs;
  while ((await findKey(stateDirectory))?.publicKey !== publicKey) {
    if (!isLocked(join(stateDirectory, "lock"))) return { state: "pending", fingerprint };
    if (clock.monotonicMs() >= untilMs) {
      throw new NixdeployError(
        "unreachable",
        "cannot wait for the agent any longer: its new key is not registered yet",
        {
          hint: "The agent does so as soon as it reaches the coordinator; until then the old key is good. Its log says more.",
        },
      );
    }
    await clock.sleep(LOOK_MS, signal);
  }
  return { state: "registered", fingerprint };
}
