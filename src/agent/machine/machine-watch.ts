/**
 * Tells the coordinator what really is on this machine whenever that changed, whoever changed it: this agent, a person
 * with `nixos-rebuild` or `nix-env`, a unit that fails.
 *
 *     what                                          looked at             told within
 *     profile, generation, running, booted system   every 10 s            10 s
 *     reboot needed                                 when those change     10 s
 *     failed units                                  every 60 s            60 s
 *     free space of the store                       every 10 s            10 s, if it changed much
 *
 * and all of it when a deployment begins or ends. Only while there is a connection; the hello of the next one says what
 * is there then. A look is a handful of readlinks; failed units cost one run of systemctl.
 *
 * It looks and does not listen: the links lie in folders where much else happens (/run), they may lead through others,
 * and a watch that the kernel did not grant, or that got lost, would be silent for good.
 */
import type { Logger } from "../../log.ts";
import { FAILED_UNITS_MAX, type MachineState } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";

export type MachineWatch = {
  /** What is there now, for a hello: from then on it counts as told. @throws the system's error */
  tell(): Promise<MachineState>;
  /** Looks at everything, at once. Never rejects. */
  look(): Promise<void>;
  /** Looks again and again. @throws the signal's reason */
  run(signal: AbortSignal): Promise<never>;
};

export type MachineWatchDeps = {
  /** All but the failed units. */
  readonly readState: () => Promise<MachineState>;
  /** By name; null where no service manager tells. */
  readonly readFailedUnits: () => Promise<readonly string[] | null>;
  readonly isConnected: () => boolean;
  /** @returns whether it left */
  readonly send: (state: MachineState) => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
};

export const LOOK_INTERVAL_MS = 10_000;
export const UNITS_INTERVAL_MS = 60_000;
/** Free space changes all the time; much is more than both. */
const MUCH_SPACE = { bytes: 1024 ** 3, part: 0.1 } as const;

type Units = Pick<MachineState, "failedUnits" | "failedUnitCount">;

export function createMachineWatch(deps: MachineWatchDeps): MachineWatch {
  const { clock, logger } = deps;
  let told: MachineState | null = null;
  let units: Units = {};
  /** One after the other, so that what was seen first is not told last. */
  let looking: Promise<void> = Promise.resolve();

  const read = async (): Promise<MachineState> => ({ ...(await deps.readState()), ...units });
  const tellChange = async () => {
    const state = await read();
    if (told !== null && !isNews(told, state)) return;
    if (deps.send(state)) told = state;
  };
  const enqueue = (work: () => Promise<void>): Promise<void> => {
    looking = looking
      .then(work)
      .catch((error: unknown) => logger.debug(`cannot look at the machine: ${String(error)}`));
    return looking;
  };
  const lookAtLinks = () => enqueue(tellChange);
  const lookAtUnits = async () => {
    // Outside the queue: a service manager that does not answer must not keep the links from being told.
    units = describeUnits(await deps.readFailedUnits());
    await enqueue(tellChange);
  };
  const repeat = async (work: () => Promise<void>, intervalMs: number, signal: AbortSignal): Promise<never> => {
    for (;;) {
      if (deps.isConnected()) {
        await work().catch((error: unknown) => logger.debug(`cannot look at the machine: ${String(error)}`));
      }
      await clock.sleep(intervalMs, signal);
    }
  };
  return {
    async tell() {
      const state = await read();
      told = state;
      return state;
    },
    async look() {
      await lookAtLinks();
      await lookAtUnits().catch((error: unknown) => logger.debug(`cannot list failed units: ${String(error)}`));
    },
    async run(signal) {
      const loops = [repeat(lookAtLinks, LOOK_INTERVAL_MS, signal), repeat(lookAtUnits, UNITS_INTERVAL_MS, signal)];
      const [ended] = await Promise.allSettled(loops);
      throw ended?.status === "rejected" ? ended.reason : signal.reason;
    },
  };
}

/** Whether the coordinator should hear of it. Pure. */
export function isNews(told: MachineState, now: MachineState): boolean {
  const { storeFreeBytes: toldBytes, ...before } = told;
  const { storeFreeBytes: nowBytes, ...after } = now;
  return !Bun.deepEquals(before, after) || hasChangedMuch(toldBytes, nowBytes);
}

function hasChangedMuch(toldBytes: number | null, nowBytes: number | null): boolean {
  if (toldBytes === null || nowBytes === null) return toldBytes !== nowBytes;
  return Math.abs(nowBytes - toldBytes) > Math.max(MUCH_SPACE.bytes, toldBytes * MUCH_SPACE.part);
}

function describeUnits(failed: readonly string[] | null): Units {
  if (failed === null) return { failedUnits: null, failedUnitCount: null };
  return { failedUnits: [...failed].sort().slice(0, FAILED_UNITS_MAX), failedUnitCount: failed.length };
}
