/** What the system says of this process, under the names that Prometheus' own clients use. Parts that it does not say
 * (open files, elsewhere than on Linux) are left out. */
import { readdir, readFile } from "node:fs/promises";
import { type Family, singleGauge } from "./exposition.ts";

const US_PER_S = 1_000_000;
const MS_PER_S = 1_000;
const OPEN_FILES_LIMIT = /^Max open files\s+(\d+)/m;

export async function readProcessFamilies({ startedMs }: { readonly startedMs: number }): Promise<readonly Family[]> {
  const cpu = process.cpuUsage();
  return [
    singleGauge("process_start_time_seconds", "When the process began, epoch seconds.", startedMs / MS_PER_S),
    singleGauge("process_resident_memory_bytes", "Resident memory.", process.memoryUsage.rss()),
    {
      name: "process_cpu_seconds_total",
      help: "Processor time of user and system.",
      type: "counter",
      samples: [{ labels: {}, value: (cpu.user + cpu.system) / US_PER_S }],
    },
    ...(await readOpenFiles()),
  ];
}

async function readOpenFiles(): Promise<readonly Family[]> {
  try {
    const [open, limits] = await Promise.all([readdir("/proc/self/fd"), readFile("/proc/self/limits", "utf8")]);
    const max = Number(OPEN_FILES_LIMIT.exec(limits)?.[1] ?? Number.NaN);
    return [
      singleGauge("process_open_fds", "Open files and connections.", open.length),
      ...(Number.isNaN(max) ? [] : [singleGauge("process_max_fds", "Open files and connections at most.", max)]),
    ];
  } catch {
    // Not Linux.
    return [];
  }
}
