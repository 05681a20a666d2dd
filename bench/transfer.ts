/** One large path on its way: peak memory of `push` and of the agent, each against `nix copy` with the same path. */
import { join } from "node:path";
import { addBigPath } from "../test/support/closure.ts";
import { createFleet, type Fleet } from "../test/support/fleet.ts";
import type { SpawnedProcess } from "../test/support/processes.ts";
import { cacheResultSchema } from "../test/support/results.ts";
import { type Memory, watchPeak } from "./measure.ts";
import { type Bench, type Finding, megabytes } from "./report.ts";

const PATH_BYTES = 512 * 1024 * 1024;
const TIMEOUT_MS = 10 * 60_000;

type Run = Memory & { readonly seconds: number };

/** Follows a process until `done`, which must not come later than its end. */
async function measure(process: SpawnedProcess, done: Promise<unknown>): Promise<Run> {
  using watch = watchPeak(process.pid);
  const startedMs = performance.now();
  await done;
  return { ...watch.peak(), seconds: (performance.now() - startedMs) / 1000 };
}

async function measureToEnd(process: SpawnedProcess): Promise<Run> {
  const run = await measure(process, process.exited);
  const { exitCode, signal } = await process.exited;
  if (exitCode !== 0)
    throw new Error(`${process.command.join(" ")} ended with ${exitCode ?? signal}:\n${process.output()}`);
  return run;
}

/** Half of it cannot be compressed, the rest compresses to half: like a system with its share of packed files. */
async function addPath(fleet: Fleet): Promise<string> {
  return await addBigPath(fleet.builder, { name: "big", sizeBytes: PATH_BYTES, incompressibleShare: 0.5 });
}

type Comparison = {
  readonly what: string;
  readonly ours: Run;
  readonly peer: Run;
  readonly coordinator: Run;
  /** Null: nobody has set a reach; it is a figure then. */
  readonly mostMb: number | null;
};

function compare({ what, ours, peer, coordinator, mostMb }: Comparison): Finding {
  const total = megabytes(`${what}, peak total`, ours.totalBytes);
  return {
    figures: [
      ...(mostMb === null ? [total] : []),
      megabytes(`${what}, peak anonymous`, ours.anonymousBytes),
      megabytes("nix copy, peak total", peer.totalBytes),
      megabytes("nix copy, peak anonymous", peer.anonymousBytes),
      megabytes("coordinator meanwhile, peak total", coordinator.totalBytes),
      { label: `${what}, time`, value: ours.seconds, unit: "s" },
      { label: "nix copy, time", value: peer.seconds, unit: "s" },
    ],
    ratios: [
      { label: "total by nix copy", value: ours.totalBytes / peer.totalBytes },
      { label: "time by nix copy", value: ours.seconds / peer.seconds },
    ],
    reaches: mostMb === null ? [] : [{ ...total, most: mostMb }],
  };
}

export const fetchPeak: Bench = {
  name: "fetch",
  summary: "Peak memory of an agent that fetches one path of 512 MiB, against `nix copy --from` our cache",
  async run() {
    await using fleet = await createFleet("bench-fetch");
    const path = await addPath(fleet);
    await fleet.expectRun(["push", path], { timeoutMs: TIMEOUT_MS });
    await fleet.expectRun(["cache", "set", "default", "--public"]);
    const device = await fleet.addDevice("nuc");
    const agent = await fleet.startAgent(device, { profile: "tools" });
    const activation = fleet.expectRun(["activate", `nuc=${path}`], { timeoutMs: TIMEOUT_MS });
    const [ours, coordinator] = await Promise.all([
      measure(agent, activation),
      measure(fleet.coordinator.process, activation),
    ]);
    const other = await fleet.addDevice("vanilla");
    const shown = cacheResultSchema.parse(JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"])));
    const trust = ["--option", "trusted-public-keys", shown.publicKeys[0] ?? ""];
    const peer = await measureToEnd(
      other.spawn(["nix", "copy", "--from", shown.url, path, ...trust], { env: { NIX_REMOTE: "daemon" } }),
    );
    return compare({ what: "agent", ours, peer, coordinator, mostMb: 120 });
  },
};

export const pushPeak: Bench = {
  name: "push",
  summary: "Peak memory of `push` with one path of 512 MiB, against `nix copy --to` a folder, zstd -3",
  async run() {
    await using fleet = await createFleet("bench-push");
    const path = await addPath(fleet);
    const push = await fleet.start(["push", path]);
    const [ours, coordinator] = await Promise.all([
      measureToEnd(push),
      measure(fleet.coordinator.process, push.exited),
    ]);
    const folder = `file://${join(fleet.directory, "vanilla")}?compression=zstd&compression-level=3`;
    const peer = await measureToEnd(fleet.builder.spawn(["nix", "copy", "--to", folder, path]));
    return compare({ what: "push", ours, peer, coordinator, mostMb: null });
  },
};
