/** How long `nixdeploy --version` takes, against the bare start of the Bun inside it. */
import { BINARY } from "../test/support/fleet.ts";
import { median } from "./measure.ts";
import type { Bench } from "./report.ts";

const RUNS = 60;
const WARM_UP_RUNS = 5;

/** From before the process is made until it has ended. */
function measureMs(command: readonly string[]): number {
  const startedMs = performance.now();
  const run = Bun.spawnSync([...command], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const tookMs = performance.now() - startedMs;
  if (run.exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${run.exitCode ?? run.signalCode}`);
  return tookMs;
}

export const startUp: Bench = {
  name: "start-up",
  summary: "`nixdeploy --version` and `--help`, against `bun --version`",
  async run() {
    const ours = [BINARY, "--version"];
    const peer = [process.execPath, "--version"];
    const help = [BINARY, "--help"];
    for (let run = 0; run < WARM_UP_RUNS; run += 1) for (const command of [ours, peer, help]) measureMs(command);
    // In turn, so that a machine whose speed drifts slows all of them.
    const rounds = Array.from({ length: RUNS }, () => ({
      oursMs: measureMs(ours),
      peerMs: measureMs(peer),
      helpMs: measureMs(help),
    }));
    return {
      figures: [
        { label: "nixdeploy --version", value: median(rounds.map(({ oursMs }) => oursMs)), unit: "ms" },
        { label: "nixdeploy --help", value: median(rounds.map(({ helpMs }) => helpMs)), unit: "ms" },
        { label: "bun --version", value: median(rounds.map(({ peerMs }) => peerMs)), unit: "ms" },
      ],
      ratios: [{ label: "by bun --version", value: median(rounds.map(({ oursMs, peerMs }) => oursMs / peerMs)) }],
      reaches: [
        {
          label: "above bun --version",
          value: median(rounds.map(({ oursMs, peerMs }) => oursMs - peerMs)),
          unit: "ms",
          most: 15,
        },
      ],
    };
  },
};
