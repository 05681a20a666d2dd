/** A process full of load agents, from outside. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Tally } from "./load-agent.ts";
import type { LoadAnswer, LoadCommand } from "./load-process.ts";

export type Load = AsyncDisposable & {
  /** Resolves with the counts once it is done. */
  run(command: LoadCommand): Promise<Tally>;
  /** The counts once they fit. @throws Error with them when they do not in time */
  waitFor(what: string, fits: (tally: Tally) => boolean, timeoutMs?: number): Promise<Tally>;
};

/** The core of everything but the coordinator. */
export const LOAD_CORE = "1";
const PROGRAM = join(import.meta.dir, "load-process.ts");
const LOOK_INTERVAL_MS = 50;
const TIMEOUT_MS = 180_000;

export function startLoad(): Load {
  const waiting = new Map<number, (tally: Tally) => void>();
  let lastId = 0;
  const child = Bun.spawn({
    cmd: ["taskset", "-c", LOAD_CORE, process.execPath, PROGRAM],
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    serialization: "json",
    ipc({ id, tally }: LoadAnswer) {
      waiting.get(id)?.(tally);
      waiting.delete(id);
    },
  });
  const run: Load["run"] = (command) => {
    const { promise, resolve } = Promise.withResolvers<Tally>();
    lastId += 1;
    waiting.set(lastId, resolve);
    child.send({ id: lastId, command });
    return promise;
  };
  return {
    run,
    async waitFor(what, fits, timeoutMs = TIMEOUT_MS) {
      const lateMs = Date.now() + timeoutMs;
      for (;;) {
        const tally = await run({ kind: "tally" });
        if (fits(tally)) return tally;
        if (Date.now() > lateMs)
          throw new Error(`${what}: not within ${timeoutMs / 1_000} s: ${JSON.stringify(tally)}`);
        await sleep(LOOK_INTERVAL_MS);
      }
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await child.exited;
    },
  };
}
