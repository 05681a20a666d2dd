/**
 * Time that survives everything but a reboot: which boot this is, and how long it has lasted. Deadlines of an activation
 * are counted in it, so that a clock that jumps neither shortens nor lengthens them, and a reboot is noticed.
 */
import { readFile } from "node:fs/promises";
import { uptime } from "node:os";
import { systemClock } from "../../runtime.ts";

export type BootTime = {
  /** Another after every reboot. */
  readonly bootId: string;
  /** Milliseconds since the boot, time asleep included where the system counts it. */
  readonly uptimeMs: number;
};

export type BootClock = { read(): Promise<BootTime> };

const LINUX_BOOT_ID = "/proc/sys/kernel/random/boot_id";
const LINUX_UPTIME = "/proc/uptime";

export const systemBootClock: BootClock = {
  async read() {
    if (process.platform !== "linux") {
      const uptimeMs = uptime() * 1_000;
      // macOS names no boot; its moment, to a minute, tells two boots apart.
      return { bootId: `since ${Math.round((systemClock.nowMs() - uptimeMs) / 60_000)}`, uptimeMs };
    }
    const [bootId, seconds] = [await readFile(LINUX_BOOT_ID, "utf8"), await readFile(LINUX_UPTIME, "utf8")];
    return { bootId: bootId.trim(), uptimeMs: Math.round(Number.parseFloat(seconds) * 1_000) };
  },
};
