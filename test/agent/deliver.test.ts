/** The outcome that no agent is left to deliver: tried for its time, left to an agent that runs, begun again when killed. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { DELIVERY_MAX_MS, deliver } from "../../src/agent/deliver.ts";
import { beginDeploymentHere, hasJournal } from "../../src/agent/journal/deployment-folder.ts";
import type { LoginResult } from "../../src/agent/link/login.ts";
import type { MessageSocket } from "../../src/agent/link/message-socket.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { NixdeployError } from "../../src/errors.ts";
import { decodeAgentFrame, decodeCoordinatorFrame } from "../../src/frames.ts";
import { silentLogger } from "../../src/log.ts";
import type { CoordinatorFrame, Welcome } from "../../src/protocol.ts";
import { type Clock, systemClock } from "../../src/runtime.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { deploymentIdOf, offerOf } from "./offers.ts";
import { welcomeFrame } from "./scripted-coordinator.ts";

const ID = deploymentIdOf("a");
const RETRY_MAX_MS = 30_000;
const random = { fraction: () => 0.5, bytes: (count: number) => new Uint8Array(count) };

let directory: TemporaryDirectory;
beforeEach(async () => {
  directory = await createTemporaryDirectory("deliver");
  await using opened = await beginDeploymentHere({
    stateDirectory: directory.path,
    offer: offerOf("a"),
    clock: systemClock,
  });
  await opened.journal.phase({ phase: "activating", previousPath: null });
  const nothing = { previousPath: null, fetchedBytes: null, exitCode: null, phaseMs: {} };
  await opened.journal.finish({ outcome: "succeeded", reason: "It is live.", ...nothing });
});
afterEach(() => directory[Symbol.asyncDispose]());

/** Time passes by sleeping between tries, at once; what limits a try as a whole takes its real time. */
function createQuickClock(): Clock {
  let sleptMs = 0;
  return {
    ...systemClock,
    monotonicMs: () => sleptMs,
    async sleep(durationMs, signal) {
      if (durationMs > RETRY_MAX_MS) return await systemClock.sleep(durationMs, signal);
      await systemClock.sleep(1, signal);
      sleptMs += durationMs;
    },
  };
}

type Answer = "away" | "refuses" | "acknowledges" | "is silent";

/** What it does at each login, the last one again and again. */
function createCoordinator(...answers: readonly [Answer, ...Answer[]]) {
  let logins = 0;
  const reported: number[][] = [];
  const reportSeen = Promise.withResolvers<void>();
  const login = async (): Promise<LoginResult> => {
    const answer = answers[Math.min(logins, answers.length - 1)];
    logins += 1;
    if (answer === "away") throw new NixdeployError("unreachable", "nobody listens");
    if (answer === "refuses") {
      return { kind: "refused", refusal: { kind: "refused", code: "not-enrolled", message: "who is that?" } };
    }
    const frames: (CoordinatorFrame | null)[] = [];
    let wake = Promise.withResolvers<void>();
    const tell = (frame: CoordinatorFrame | null) => {
      frames.push(frame);
      wake.resolve();
    };
    const socket: MessageSocket = {
      send(text) {
        const decoded = decodeAgentFrame(text);
        if (decoded.kind !== "frame" || decoded.frame.kind !== "report") return;
        const { deploymentId, entries } = decoded.frame;
        const numbers = entries.map(({ n }) => n);
        reported.push(numbers);
        reportSeen.resolve();
        if (answer !== "acknowledges") return;
        tell({ kind: "acknowledge", deploymentId, through: Math.max(...numbers) });
      },
      messages: (async function* () {})(),
      bufferedBytes: 0,
      closeReason: "",
      close: () => tell(null),
      destroy: () => tell(null),
    };
    const next = async () => {
      while (frames.length === 0) {
        await wake.promise;
        wake = Promise.withResolvers();
      }
      return frames.shift() ?? null;
    };
    return { kind: "welcome", welcome: readWelcome(), socket, frames: { next } };
  };
  return {
    login,
    reported,
    reportSeen: reportSeen.promise,
    get logins() {
      return logins;
    },
  };
}

function readWelcome(): Welcome {
  const decoded = decodeCoordinatorFrame(JSON.stringify(welcomeFrame()));
  if (decoded.kind === "frame" && decoded.frame.kind === "welcome") return decoded.frame;
  throw new Error("the test's welcome is none");
}

function start(
  login: (signal: AbortSignal) => Promise<LoginResult>,
  { clock = createQuickClock(), signal = new AbortController().signal } = {},
) {
  return deliver({
    ...{ stateDirectory: directory.path, deploymentId: ID, login, clock, random, signal },
    logger: silentLogger,
  });
}
const isLeft = () => hasJournal(directory.path, ID);

test("is told at the first login, and then forgotten", async () => {
  const coordinator = createCoordinator("acknowledges");
  expect(await start(coordinator.login)).toBe("delivered");
  expect(coordinator.reported.flat()).toEqual([1, 2]);
  expect([coordinator.logins, await isLeft()]).toEqual([1, false]);
});

test("a coordinator that is away and comes back is told then", async () => {
  const coordinator = createCoordinator("away", "refuses", "away", "acknowledges");
  expect(await start(coordinator.login)).toBe("delivered");
  expect([coordinator.logins, await isLeft()]).toEqual([4, false]);
});

describe("gives up when its time is over, and leaves the journal to the next agent", () => {
  test.each([
    ["is away", "away"],
    ["refuses", "refuses"],
  ] as const)("a coordinator that %s", async (_, answer) => {
    const clock = createQuickClock();
    const coordinator = createCoordinator(answer);
    expect(await start(coordinator.login, { clock })).toBe("given-up");
    expect(clock.monotonicMs()).toBeWithin(DELIVERY_MAX_MS, DELIVERY_MAX_MS + RETRY_MAX_MS);
    expect(coordinator.logins).toBeGreaterThan(DELIVERY_MAX_MS / RETRY_MAX_MS);
    expect(await isLeft()).toBe(true);
  });

  test("a login that never ends", async () => {
    const clock = createManualClock();
    const asked = Promise.withResolvers<void>();
    const hang = (signal: AbortSignal) => {
      asked.resolve();
      return new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
    };
    let end = "";
    const ended = start(hang, { clock }).then((how) => {
      end = how;
    });
    await asked.promise;
    await clock.advance(DELIVERY_MAX_MS - 1);
    expect(end).toBe("");
    const ticks = (async () => {
      while (end === "") await clock.advance(1_000);
    })();
    await Promise.all([ended, ticks]);
    expect(end).toBe("given-up");
    expect(await isLeft()).toBe(true);
  });
});

test("an agent that holds the state directory is left to do it itself", async () => {
  const coordinator = createCoordinator("acknowledges");
  using lock = tryLockFile(join(directory.path, "lock"), 0o700);
  expect(lock).not.toBeNull();
  expect(await start(coordinator.login)).toBe("an-agent-does");
  expect([coordinator.logins, await isLeft()]).toEqual([0, true]);
});

test("ended before it is acknowledged, and begun again, it tells everything again", async () => {
  const silent = createCoordinator("is silent");
  const stop = new AbortController();
  const first = start(silent.login, { clock: systemClock, signal: stop.signal });
  await silent.reportSeen;
  stop.abort(new Error("killed"));
  await expect(first).rejects.toThrow("killed");
  expect(await isLeft()).toBe(true);
  const coordinator = createCoordinator("acknowledges");
  expect(await start(coordinator.login)).toBe("delivered");
  expect([silent.reported.flat(), coordinator.reported.flat()]).toEqual([
    [1, 2],
    [1, 2],
  ]);
  expect(await isLeft()).toBe(false);
});

test("what has been delivered already needs no login", async () => {
  await start(createCoordinator("acknowledges").login);
  const coordinator = createCoordinator("away");
  expect([await start(coordinator.login), coordinator.logins]).toEqual(["delivered", 0]);
});
