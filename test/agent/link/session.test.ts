/** One connection from its welcome on, with a clock that stands still until it is moved; and when to come back. */
import { describe, expect, test } from "bun:test";
import { createChangeSignal } from "../../../src/agent/journal/change-signal.ts";
import type { DeploymentStore } from "../../../src/agent/journal/deployment-store.ts";
import { planAttempt } from "../../../src/agent/link/connection.ts";
import type { FrameReader } from "../../../src/agent/link/login.ts";
import type { MessageSocket } from "../../../src/agent/link/message-socket.ts";
import { runSession } from "../../../src/agent/link/session.ts";
import { silentLogger } from "../../../src/log.ts";
import type { CoordinatorFrame } from "../../../src/protocol.ts";
import { createManualClock } from "../../support/manual-clock.ts";

/** A session whose coordinator says only what the test lets it say. */
function startSession({ answersGoodbye = true } = {}) {
  const clock = createManualClock();
  const sent: { readonly atS: number; readonly text: string }[] = [];
  const stop = new AbortController();
  let wake = Promise.withResolvers<CoordinatorFrame | null>();
  let isDestroyed = false;
  const frames: FrameReader = { next: () => wake.promise };
  const receive = (frame: CoordinatorFrame | null) => {
    const { resolve } = wake;
    wake = Promise.withResolvers();
    resolve(frame);
  };
  const socket: MessageSocket = {
    send: (text) => void sent.push({ atS: clock.monotonicMs() / 1_000, text }),
    messages: (async function* () {})(),
    bufferedBytes: 0,
    closeReason: "",
    close: () => {
      sent.push({ atS: clock.monotonicMs() / 1_000, text: "goodbye" });
      if (answersGoodbye) receive(null);
    },
    destroy: () => {
      isDestroyed = true;
      receive(null);
    },
  };
  const store: DeploymentStore = {
    journals: [],
    changes: createChangeSignal(),
    find: () => null,
    adopt: async () => {},
    begin: () => Promise.reject(new Error("no deployment here")),
    endInMemory: () => Promise.reject(new Error("no deployment here")),
    acknowledge: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  const handlers = { onOffer: () => {}, onCancel: () => {}, onCaches: async () => {} };
  const ended = runSession({ socket, frames, store, handlers, clock, logger: silentLogger, signal: stop.signal });
  return { clock, sent, receive, stop, ended, isDestroyed: () => isDestroyed };
}

const PONG: CoordinatorFrame = { kind: "pong" };

describe("heartbeats", () => {
  test("go out every 20 s: well within the 60 s after which proxies cut idle connections", async () => {
    const session = startSession();
    for (let pings = 1; pings <= 6; pings += 1) {
      await session.clock.advance(20_000);
      session.receive(PONG);
    }
    expect(session.sent.map(({ atS }) => atS)).toEqual([20, 40, 60, 80, 100, 120]);
    session.stop.abort(new Error("over"));
    await session.ended;
  });

  test("a coordinator that vanished is given up 60 s after its last word, whenever that was", async () => {
    for (const lastWordS of [0, 1, 19, 20, 33]) {
      const session = startSession();
      await session.clock.advance(lastWordS * 1_000);
      session.receive(PONG);
      await session.clock.advance(59_999);
      expect([lastWordS, session.isDestroyed()]).toEqual([lastWordS, false]);
      await session.clock.advance(1);
      expect([lastWordS, session.isDestroyed()]).toEqual([lastWordS, true]);
      expect(await session.ended).toBe("the coordinator was silent for 60 s");
    }
  });
});

describe("the end of the agent", () => {
  test("is said, and what comes until the answer is heard", async () => {
    const session = startSession();
    session.stop.abort(new Error("over"));
    await session.ended;
    expect(session.sent.map(({ text }) => text)).toEqual(["goodbye"]);
  });

  test("does not wait for long for a coordinator that does not answer", async () => {
    const session = startSession({ answersGoodbye: false });
    session.stop.abort(new Error("over"));
    await session.clock.advance(1_999);
    expect(session.isDestroyed()).toBe(false);
    await session.clock.advance(1);
    expect(await session.ended).toBe("over");
    expect(session.isDestroyed()).toBe(true);
  });
});

describe("the wait after a connection", () => {
  const cases: readonly (readonly [what: string, attempt: number, lastedMs: number, next: number])[] = [
    ["none was made: it grows", 4, 0, 4],
    ["it broke at once: it grows", 4, 900, 4],
    ["it lasted 3 s: at most 1 s", 4, 3_000, 0],
    ["it lasted 10 s: at most 4 s", 6, 10_000, 2],
    ["it lasted 10 s, and the waits are short still", 1, 10_000, 1],
    ["it lasted 30 s: from the beginning", 6, 30_000, 0],
    ["it lasted a day: from the beginning", 6, 86_400_000, 0],
  ];
  for (const [what, attempt, lastedMs, next] of cases) {
    test(what, () => {
      expect(planAttempt(attempt, lastedMs)).toBe(next);
    });
  }
});
