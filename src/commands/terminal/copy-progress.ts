/** How far a copy is, in words: of all hosts together, with speed and the time that is left. */
import type { TransferEvent } from "../../client/copy/transfer.ts";
import { storePathBaseName } from "../../nix/store-path.ts";
import { formatBytes, formatCount } from "../../quantity.ts";
import type { Clock } from "../../runtime.ts";
import { addSample, describeSpeed, measureSpeed, type Sample } from "../../transfer-speed.ts";
import type { ProgressLine } from "./progress-line.ts";

/** Paths from this size on have a line of their own. */
const LARGE_PATH_BYTES = 10_000_000;

type HostState = { bytes: number; bytesTotal: number; paths: number; pathsTotal: number };

export type CopyProgress = {
  onEvent(host: string, event: TransferEvent): void;
  /** A line that stays. */
  say(text: string): void;
  /** Resolves when all is printed; takes the changing line away. */
  clear(): Promise<void>;
};

export function createCopyProgress(
  line: ProgressLine,
  options: { readonly clock: Clock; readonly verb: string },
): CopyProgress {
  const { clock, verb } = options;
  let samples: readonly Sample[] = [{ atMs: clock.monotonicMs(), bytes: 0 }];
  const hosts = new Map<string, HostState>();
  // Events come without waiting; what they print is written in their order.
  let printing: Promise<void> = Promise.resolve();
  const print = (write: () => Promise<void>) => {
    printing = printing.then(write);
  };
  const say = (text: string) => print(() => line.say(text));

  const sumHosts = () => {
    const sum: HostState = { bytes: 0, bytesTotal: 0, paths: 0, pathsTotal: 0 };
    for (const host of hosts.values()) {
      sum.bytes += host.bytes;
      sum.bytesTotal += host.bytesTotal;
      sum.paths += host.paths;
      sum.pathsTotal += host.pathsTotal;
    }
    return sum;
  };
  const describe = () => {
    const sum = sumHosts();
    const speed = measureSpeed(samples, { nowMs: clock.monotonicMs(), bytesTotal: sum.bytesTotal });
    return [
      ...(hosts.size > 1 ? [`${hosts.size} hosts`] : []),
      `${sum.paths} of ${formatCount(sum.pathsTotal, "path")}`,
      `${formatBytes(sum.bytes)} of ${formatBytes(sum.bytesTotal)}`,
      ...describeSpeed(speed),
    ].join(", ");
  };

  const begin = (host: string, { missing, pathsTotal }: Extract<TransferEvent, { kind: "planned" }>) => {
    const bytesTotal = missing.reduce((sum, info) => sum + info.narSizeBytes, 0);
    hosts.set(host, { bytes: 0, bytesTotal, paths: 0, pathsTotal: missing.length });
    const there = `${pathsTotal - missing.length} there already`;
    if (missing.length === 0)
      return say(`${host}: nothing to ${verb}, all ${formatCount(pathsTotal, "path")} are there`);
    say(`${host}: ${formatCount(missing.length, "path")} to ${verb} (${formatBytes(bytesTotal)}), ${there}`);
  };

  return {
    say,
    onEvent(host, event) {
      const state = hosts.get(host);
      switch (event.kind) {
        case "planned":
          return begin(host, event);
        case "bytes":
          if (state !== undefined) state.bytes += event.count;
          samples = addSample(samples, { atMs: clock.monotonicMs(), bytes: sumHosts().bytes });
          break;
        case "path":
          if (state !== undefined) state.paths += 1;
          if (event.info.narSizeBytes >= LARGE_PATH_BYTES) {
            say(`${host}: ${storePathBaseName(event.info.storePath)} (${formatBytes(event.info.narSizeBytes)})`);
          }
          break;
        case "lost":
          return say(`${host}: the connection was lost, going on with what is missing (${event.why})`);
        default:
          return event satisfies never;
      }
      print(() => line.update(describe));
    },
    async clear() {
      await printing;
      await line.clear();
    },
  };
}
