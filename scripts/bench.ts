/**
 * `bun run bench [NAME…]`: builds the binary and runs the benches of those names, all without one. Prints what it finds
 * and judges nothing by its exit code: a missed reach is for a human to read (bench/README.md).
 */
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { idle } from "../bench/coordinator/idle.ts";
import { intake } from "../bench/coordinator/intake.ts";
import { rollout } from "../bench/coordinator/rollout.ts";
import { storm } from "../bench/coordinator/storm.ts";
import { idleAgent } from "../bench/idle-agent.ts";
import { type Bench, formatFinding } from "../bench/report.ts";
import { startUp } from "../bench/start-up.ts";
import { fetchPeak, pushPeak } from "../bench/transfer.ts";
import { ensureNix } from "../test/support/nix.ts";

const BENCHES: readonly Bench[] = [startUp, idleAgent, fetchPeak, pushPeak, idle, rollout, storm, intake];

async function main(names: readonly string[]): Promise<number> {
  const unknown = names.filter((name) => !BENCHES.some((bench) => bench.name === name));
  if (unknown.length > 0) {
    console.error(`bench: there is no bench ${unknown.join(", ")}; there are ${BENCHES.map((b) => b.name).join(", ")}`);
    return 2;
  }
  await build();
  const nix = await ensureNix();
  const [processor] = cpus();
  console.log(
    `${cpus().length} x ${processor?.model.trim() ?? "unknown processor"}, ${Math.round(totalmem() / 1e9)} GB; ` +
      `Bun ${Bun.version}, Nix ${nix.version}`,
  );
  for (const bench of BENCHES.filter(({ name }) => names.length === 0 || names.includes(name))) {
    console.log(`\n${bench.name}: ${bench.summary}`);
    console.log(formatFinding(await bench.run()));
  }
  return 0;
}

async function build(): Promise<void> {
  const cmd = [process.execPath, join(import.meta.dir, "../build.ts")];
  const child = Bun.spawn({ cmd, stdin: "ignore", stdout: "inherit", stderr: "inherit" });
  if ((await child.exited) !== 0) throw new Error("the build failed");
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});
