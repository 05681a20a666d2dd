/** A login to something that takes the connection and goes no further: what is said of it. */
import { expect, test } from "bun:test";
import { loadIdentity } from "../../../src/agent/link/identity.ts";
import { login } from "../../../src/agent/link/login.ts";
import { parseAgentName } from "../../../src/names.ts";
import { machineStateSchema } from "../../../src/protocol.ts";
import { systemRandom } from "../../../src/runtime.ts";
import { createMemoryDialer, type MemoryPeer } from "../../support/memory-socket.ts";
import { machineState } from "../../support/scripted-agent.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";
import { createVirtualClock } from "../../support/virtual-clock.ts";

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

test.each(CASES)("one that %s", async (_, accept, said) => {
  await using directory = await createTemporaryDirectory("login");
  const attempt = login({
    coordinatorUrl: "http://coordinator.test",
    name: parseAgentName("nuc"),
    identity: await loadIdentity({ stateDirectory: directory.path, random: systemRandom }),
    enrolmentToken: null,
    readFacts: async () => ({
      ...{ agentVersion: "1", system: "x86_64-linux", hostName: "nuc", nixVersion: null, profile: "/p" },
      state: machineStateSchema.parse(machineState(null)),
    }),
    dial: createMemoryDialer(accept),
    clock: createVirtualClock(),
    signal: new AbortController().signal,
  });
  await expect(attempt).rejects.toMatchObject({ kind: "unreachable", message: said });
});
