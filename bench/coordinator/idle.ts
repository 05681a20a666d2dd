/** What connected agents that have nothing to do cost the coordinator, and how that grows with their number. */
import { setTimeout as sleep } from "node:timers/promises";
import { PING_INTERVAL_MS } from "../../src/protocol.ts";
import { median, readMemory } from "../measure.ts";
import { type Bench, type Figure, megabytes } from "../report.ts";
import { LOAD_CORE, startLoad } from "./load.ts";
import { COORDINATOR_CORE, readCpuSeconds, startServed } from "./served.ts";

export const AGENTS = 10_000;
export const FEWER_AGENTS = 1_000;
/** Connections that are being made at the same time. */
export const AT_ONCE = 500;
/** What the logins left is collected then. */
const SETTLE_MS = 30_000;
/** Three heartbeats of every agent. */
const WINDOW_MS = 3 * PING_INTERVAL_MS;
const PERCENT = 100;
const BYTES_PER_KB = 1_000;
const MICROSECONDS = 1e6;

type Idle = { readonly emptyBytes: number; readonly totalBytes: number; readonly cpu: number };

export const idle: Bench = {
  name: "coordinator-idle",
  summary: `The coordinator with ${AGENTS} connected agents that only ping, on one core, against an empty websocket server`,
  async run() {
    const fewer = await measureCoordinator(FEWER_AGENTS);
    const all = await measureCoordinator(AGENTS);
    const peer = await measurePeer(AGENTS);
    const bytesEach = (measured: Idle, agents: number) => (measured.totalBytes - measured.emptyBytes) / agents;
    const cpuEach = (measured: Idle, agents: number) => (measured.cpu / agents) * MICROSECONDS;
    const figures: Figure[] = [
      megabytes("coordinator without agents", all.emptyBytes),
      megabytes("peer, total", peer.totalBytes),
      { label: "peer, of a core", value: peer.cpu * PERCENT, unit: "%" },
    ];
    for (const [agents, measured] of [
      [FEWER_AGENTS, fewer],
      [AGENTS, all],
    ] as const) {
      figures.push({ label: `each of ${agents}`, value: bytesEach(measured, agents) / BYTES_PER_KB, unit: "kB" });
      figures.push({ label: `each of ${agents}, a second`, value: cpuEach(measured, agents), unit: "us" });
    }
    return {
      figures,
      ratios: [
        { label: "memory by peer", value: all.totalBytes / peer.totalBytes },
        { label: "processor by peer", value: all.cpu / peer.cpu },
      ],
      reaches: [
        { ...megabytes(`${AGENTS} agents, total`, all.totalBytes), most: 120 },
        { label: `${AGENTS} agents, of a core`, value: all.cpu * PERCENT, unit: "%", most: 3 },
      ],
    };
  },
};

async function measureCoordinator(agents: number): Promise<Idle> {
  await using served = await startServed();
  await using load = startLoad();
  const emptyBytes = served.memory().totalBytes;
  await load.run({ kind: "set", url: served.agentUrl, token: await served.makeToken() });
  await load.run({ kind: "connect", from: 0, to: agents, atOnce: AT_ONCE });
  const measured = await measureWindow(served.pid);
  const tally = await load.run({ kind: "tally" });
  if (tally.connected !== agents || tally.closed > 0) throw new Error(`not all stayed: ${JSON.stringify(tally)}`);
  return { emptyBytes, ...measured };
}

async function measurePeer(agents: number): Promise<Idle> {
  const peer = Bun.spawn({
    cmd: ["taskset", "-c", COORDINATOR_CORE, process.execPath, `${import.meta.dir}/peer.ts`],
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const clients = Bun.spawn({
    cmd: [
      "taskset",
      "-c",
      LOAD_CORE,
      process.execPath,
      `${import.meta.dir}/peer-load.ts`,
      await firstLine(peer.stdout),
      String(agents),
    ],
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  try {
    const emptyBytes = readMemory(peer.pid).totalBytes;
    await firstLine(clients.stdout);
    return { emptyBytes, ...(await measureWindow(peer.pid)) };
  } finally {
    for (const child of [clients, peer]) {
      child.kill();
      await child.exited;
    }
  }
}

async function measureWindow(pid: number): Promise<{ readonly totalBytes: number; readonly cpu: number }> {
  await sleep(SETTLE_MS);
  const [startMs, startCpu] = [performance.now(), readCpuSeconds(pid)];
  const samples: number[] = [];
  for (let look = 0; look < 6; look += 1) {
    await sleep(WINDOW_MS / 6);
    samples.push(readMemory(pid).totalBytes);
  }
  const seconds = (performance.now() - startMs) / 1_000;
  return { totalBytes: median(samples), cpu: (readCpuSeconds(pid) - startCpu) / seconds };
}

async function firstLine(stdout: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stdout) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("\n")) break;
  }
  return text.trim();
}
