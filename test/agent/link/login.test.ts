/** A login to something that takes the connection and goes no further: what is said of it. */
import { expect, test } from "bun:test";
import { loadIdentity } from "../../../src/agent/link/identity.ts";
import { login } from "../../../src/agent/link/login.ts";
import { parseAgentName } from "../../../src/names.ts";
import { machineStateSchema } from "../../../src/protocol.ts";
import { type Clock, systemRandom } from "../../../src/runtime.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryDialer, type MemoryPeer } from "../../support/memory-socket.ts";
import { machineState } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";
import { waitFor } from "../../support/wait-for.ts";
import { challenge, welcomeFrame } from "../scripted-coordinator.ts";

const CASES: readonly (readonly [what: string, accept: (peer: MemoryPeer) => void, said: string])[] = [
  ["is silent", () => {}, "cannot log in to http://coordinator.test: it did not answer for 20 s"],
  [
    "closes the connection",
    (peer) => peer.close("maintenance"),
    "cannot log in to http://coordinator.test: it ended the connection (maintenance)",
  ],
  [
    "closes the connection without a word",
    (peer) => peer.close(),
    "cannot log in to http://coordinator.test: it ended the connection",
  ],
];

async function logIn(accept: (peer: MemoryPeer) => void, { signal, clock }: { signal: AbortSignal; clock: Clock }) {
  await using directory = await createTemporaryDirectory("login");
  return await login({
    coordinatorUrl: "http://coordinator.test",
    name: parseAgentName("nuc"),
    identity: await loadIdentity({ stateDirectory: directory.path, random: systemRandom }),
    enrolmentToken: null,
    readFacts: async () => ({
      ...{ agentVersion: "1", system: "x86_64-linux", hostName: "nuc", nixVersion: null, profile: "/p" },
      state: machineStateSchema.parse(machineState(null)),
    }),
    dial: createMemoryDialer(accept),
    clock,
    signal,
  });
}

test.each(CASES)("one that %s", async (_, accept, said) => {
  const attempt = logIn(accept, { signal: new AbortController().signal, clock: createVirtualClock() });
  await expect(attempt).rejects.toMatchObject({ kind: "unreachable", message: said });
});

test("a signal ends the way to the welcome at once, and no connection that is its caller's", async () => {
  const stop = new AbortController();
  const options = { signal: stop.signal, clock: createManualClock() };
  const peers: MemoryPeer[] = [];
  const welcomed = await logIn((peer) => {
    peers.push(peer);
    challenge(peer);
    void peer.expect("hello").then(() => peer.send(welcomeFrame()));
  }, options);
  const waiting = logIn((peer) => void peers.push(peer), options);
  await waitFor("the second connection", () => peers.length === 2);
  stop.abort(new Error("the agent ends"));
  await expect(waiting).rejects.toThrow("the agent ends");
  expect(peers.map(({ isClosed }) => isClosed)).toEqual([false, true]);
  if (welcomed.kind === "welcome") welcomed.socket.close();
  expect(peers[0]?.isClosed).toBe(true);
});
