/**
 * Reboots a host that has no nixdeploy, and waits until it is back: another boot id tells, not that it was away. Nobody over
 * there goes back if it does not come up.
 */
import { lastLine } from "../ssh/ssh-failure.ts";
import type { FarActivation } from "./far-activation.ts";
import type { SystemEnd } from "./system-end.ts";

const BY = "switch-to-configuration";
const PAUSE_MS = 1_000;
const REBOOT_MAX_MS = 15 * 60_000;
const CALL_MAX_MS = 60_000;

const LOOK_SCRIPT = `echo "nixdeploy-boot=$(cat /proc/sys/kernel/random/boot_id)"; readlink -f /run/current-system | sed 's/^/nixdeploy-system=/'`;
const REBOOT_SCRIPT = `systemctl reboot || reboot`;

/** The system is the default for the next boot already. @throws the signal's reason */
export async function rebootInto(options: FarActivation): Promise<SystemEnd> {
  const { side, asRoot, clock, signal, storePath } = options;
  const degraded = (reason: string) => ({ by: BY, outcome: "degraded", reason }) as const;
  const look = async (fresh: boolean) => {
    const { stdout } = await side.run({ text: LOOK_SCRIPT, fresh, deadlineMs: CALL_MAX_MS }, signal);
    const [, boot = ""] = /^nixdeploy-boot=(\S+)$/m.exec(stdout) ?? [];
    const [, system = ""] = /^nixdeploy-system=(\S+)$/m.exec(stdout) ?? [];
    // It may be up before the system is.
    return boot === "" || system === "" ? null : { boot, system };
  };
  const ignore = (error: unknown) => {
    // The connection dies of what was asked for.
    if (signal.aborted) throw error;
    return null;
  };
  const before = await look(false).catch(ignore);
  if (before === null)
    return degraded("it is the default, and was not told to reboot: it does not say when it was booted");
  const told = await side.run({ text: REBOOT_SCRIPT, asRoot, deadlineMs: CALL_MAX_MS }, signal).catch(ignore);
  if (told !== null && !told.isLate && told.code !== null && told.code !== 0) {
    return degraded(`it is the default, and cannot be rebooted: ${lastLine(told.stderr) || `code ${told.code}`}`);
  }
  const untilMs = clock.monotonicMs() + REBOOT_MAX_MS;
  while (clock.monotonicMs() < untilMs) {
    const now = await look(true).catch(ignore);
    if (now !== null && now.boot !== before.boot) {
      if (now.system === storePath) return { by: BY, outcome: "succeeded", reason: "it has booted" };
      return degraded(`it came back with ${now.system} instead`);
    }
    await clock.sleep(PAUSE_MS, signal);
  }
  return degraded("it was told to reboot, and did not come back within 15 minutes");
}
