/** How real agents of the same process reach a coordinator: frames go from one to the other, in order, as over a socket. */
import type { DialMessageSocket } from "../../src/agent/link/message-socket.ts";
import type { Coordinator } from "../../src/server/coordinator.ts";
import { createMemoryDialer, type MemoryPeer } from "./memory-socket.ts";

export type Wire = {
  /** Asked before each frame, in either direction; false cuts the connection instead. */
  mayPass(direction: "to-coordinator" | "to-agent"): boolean;
};

export function createCoordinatorDialer(coordinator: () => Coordinator, wire: Wire): DialMessageSocket {
  return createMemoryDialer((peer) => void connect(coordinator(), peer, wire));
}

async function connect(coordinator: Coordinator, peer: MemoryPeer, wire: Wire): Promise<void> {
  const session = coordinator.openAgentSession({
    send(text) {
      if (peer.isClosed) return false;
      if (wire.mayPass("to-agent")) peer.sendText(text);
      else peer.close("cut");
      return true;
    },
    close: (_code, reason) => peer.close(reason),
  });
  session.open();
  try {
    for (let frame = await peer.next(); frame !== null; frame = await peer.next()) {
      if (!wire.mayPass("to-coordinator")) break;
      await session.receive(JSON.stringify(frame));
    }
  } finally {
    peer.close("gone");
    await session.closed();
  }
}
