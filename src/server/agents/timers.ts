/**
 * One timer for each agent at most: when it is to be looked at again. Kept in memory only; whoever sets one can set it
 * anew from the database.
 */
import type { AgentId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";

export type AgentTimers = AsyncDisposable & {
  /** Calls back once, that much later, unless another one is set or it is cleared. */
  set(agentId: AgentId, afterMs: number): void;
  clear(agentId: AgentId): void;
};

type Timer = { readonly stop: AbortController; readonly done: Promise<void> };

/** @param onDue what it throws, nobody hears of */
export function createAgentTimers(clock: Clock, onDue: (agentId: AgentId) => Promise<void>): AgentTimers {
  const timers = new Map<AgentId, Timer>();
  const running = new Set<Promise<void>>();
  const clear = (agentId: AgentId) => {
    timers.get(agentId)?.stop.abort(new Error("the timer was cleared"));
    timers.delete(agentId);
  };
  const run = async (agentId: AgentId, afterMs: number, stop: AbortController) => {
    try {
      await clock.sleep(afterMs, stop.signal);
    } catch {
      // Cleared.
      return;
    }
    if (timers.get(agentId)?.stop === stop) timers.delete(agentId);
    await onDue(agentId);
  };
  return {
    set(agentId, afterMs) {
      clear(agentId);
      const stop = new AbortController();
      const done = run(agentId, afterMs, stop).finally(() => running.delete(done));
      running.add(done);
      timers.set(agentId, { stop, done });
    },
    clear,
    async [Symbol.asyncDispose]() {
      for (const agentId of [...timers.keys()]) clear(agentId);
      await Promise.all(running);
    },
  };
}
