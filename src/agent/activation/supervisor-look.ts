/**
 * Whether somebody works on the record, as the agent sees it, and starting a supervisor where nobody does. Who it is, and
 * how it is started, is `launch.ts`; several that are started at once sort themselves out by their lock.
 */
import { join } from "node:path";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Clock } from "../../runtime.ts";
import { tryLockFile } from "../machine/flock.ts";

type LookDeps = {
  readonly config: { readonly stateDirectory: string };
  readonly launch: () => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** One that was started gets this long to take the lock, then twice as long, … */
const SUPERVISOR_START_MS = 6_000;
const SUPERVISOR_START_MAX_MS = 60_000;

/**
 * A look that starts a supervisor where there is none. On a slow machine one takes long until it has the lock; more of
 * them, one a look, would only make all of them slower.
 */
export function createSupervisorLook({ config, launch, clock, logger }: LookDeps): () => Promise<void> {
  let patienceMs = SUPERVISOR_START_MS;
  let notBeforeMs = Number.NEGATIVE_INFINITY;
  return async () => {
    try {
      if (isSupervised(config.stateDirectory)) {
        patienceMs = SUPERVISOR_START_MS;
        notBeforeMs = Number.NEGATIVE_INFINITY;
      } else if (clock.monotonicMs() >= notBeforeMs) {
        await launch();
        notBeforeMs = clock.monotonicMs() + patienceMs;
        patienceMs = Math.min(2 * patienceMs, SUPERVISOR_START_MAX_MS);
      }
    } catch (error) {
      logger.error(`cannot start a supervisor: ${describeError(error)}`);
    }
  };
}

function isSupervised(stateDirectory: string): boolean {
  using lock = tryLockFile(join(stateDirectory, "activation.lock"), 0o755, 1);
  return lock === null;
}
