/** What an agent costs a device while nothing happens: the compiled binary, connected to a real coordinator. */
import { setTimeout as sleep } from "node:timers/promises";
import { createFleet } from "../test/support/fleet.ts";
import { type Memory, median, readMemory } from "./measure.ts";
import { type Bench, megabytes } from "./report.ts";

/** The heap's last collections after the start are over then, and a heartbeat has passed. */
const SETTLE_MS = 40_000;
const SAMPLES = 10;
const SAMPLE_INTERVAL_MS = 1_000;

async function sampleMemory(pid: number): Promise<Memory> {
  const samples: Memory[] = [];
  while (samples.length < SAMPLES) {
    samples.push(readMemory(pid));
    await sleep(SAMPLE_INTERVAL_MS);
  }
  return {
    totalBytes: median(samples.map(({ totalBytes }) => totalBytes)),
    anonymousBytes: median(samples.map(({ anonymousBytes }) => anonymousBytes)),
  };
}

/** A program of one line in the same runtime, that waits as the agent does. */
function startPeer() {
  return Bun.spawn([process.execPath, "-e", "setInterval(() => {}, 1_000)"], { stdin: "ignore", stdout: "ignore" });
}

export const idleAgent: Bench = {
  name: "idle-agent",
  summary: "Resident memory of a connected agent with nothing to do, against an idle Bun",
  async run() {
    await using fleet = await createFleet("bench-idle");
    const device = await fleet.addDevice("nuc");
    const agent = await fleet.startAgent(device, { profile: "tools" });
    const peer = startPeer();
    try {
      await sleep(SETTLE_MS);
      const [ours, bun, coordinator] = await Promise.all([
        sampleMemory(agent.pid),
        sampleMemory(peer.pid),
        sampleMemory(fleet.coordinator.process.pid),
      ]);
      return {
        figures: [
          megabytes("agent, anonymous", ours.anonymousBytes),
          megabytes("idle bun, total", bun.totalBytes),
          megabytes("idle bun, anonymous", bun.anonymousBytes),
          megabytes("coordinator, total", coordinator.totalBytes),
          megabytes("coordinator, anonymous", coordinator.anonymousBytes),
        ],
        ratios: [
          { label: "total by idle bun", value: ours.totalBytes / bun.totalBytes },
          { label: "anonymous by idle bun", value: ours.anonymousBytes / bun.anonymousBytes },
        ],
        reaches: [{ ...megabytes("agent, total", ours.totalBytes), most: 45 }],
      };
    } finally {
      peer.kill();
      await peer.exited;
    }
  },
};
