/**
 * Time that survives everything but a reboot: which boot this is, and how long it has lasted. Deadlines of an activation
 * are counted in it, so that a clock that jumps neither shortens nor lengthens them, and a reboot is noticed.
 */
import { readFile } from "node:fs/promises";
import { uptime } from "node:os";
import { type Clock, systemClock } from "../../runtime.ts";
import { type RunProgram, runProgram } from "./process.ts";

export type BootTime = {
  /** Another after every reboot. */
  readonly bootId: string;
  /** Milliseconds since the boot, time asleep included where the system counts it. */
  readonly uptimeMs: number;
};

export type BootClock = { read(): Promise<BootTime> };

const LINUX_BOOT_ID = "/proc/sys/kernel/random/boot_id";
const LINUX_UPTIME = "/proc/uptime";

const SYSCTL_MAX_MS = 10_000;
const UUID = /^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$/i;

export function createBootClock(deps: {
  readonly os: string;
  readonly run: RunProgram;
  readonly clock: Clock;
  /** Where /proc does not say. */
  readonly uptimeMs: () => number;
}): BootClock {
  if (deps.os === "linux") return { read: readLinux };
  let session: string | null = null;
  return {
    async read() {
      const uptimeMs = deps.uptimeMs();
      session ??= await askSession(deps);
      // The moment of the boot, to a minute, tells two boots apart where the kernel names none.
      return { bootId: session ?? `since ${Math.round((deps.clock.nowMs() - uptimeMs) / 60_000)}`, uptimeMs };
    },
  };
}

export const systemBootClock = createBootClock({
  os: process.platform,
  run: runProgram,
  clock: systemClock,
  uptimeMs: () => uptime() * 1_000,
});

async function readLinux(): Promise<BootTime> {
  const [bootId, seconds] = [await readFile(LINUX_BOOT_ID, "utf8"), await readFile(LINUX_UPTIME, "utf8")];
  return { bootId: bootId.trim(), uptimeMs: Math.round(Number.parseFloat(seconds) * 1_000) };
}

/** Of macOS: another after every boot, whatever the clock is set to. Null where there is none. */
async function askSession({ run, clock }: { readonly run: RunProgram; readonly clock: Clock }): Promise<string | null> {
  const lines: string[] = [];
  await run({
    ...{ command: "/usr/sbin/sysctl", args: ["-n", "kern.bootsessionuuid"], environment: {}, clock },
    deadlineMs: SYSCTL_MAX_MS,
    onLine: async (_stream, text) => void lines.push(text.trim()),
  });
  return lines.find((line) => UUID.test(line)) ?? null;
}
