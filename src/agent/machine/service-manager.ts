/** Who runs services on this machine: launchd on macOS, elsewhere systemd, if it runs. */
import { createLaunchd } from "./launchd.ts";
import { createSystemd, type ServiceManager, type ServiceManagerDeps } from "./systemd.ts";

export function createServiceManager(deps: ServiceManagerDeps): ServiceManager {
  if (process.platform !== "darwin") return createSystemd(deps);
  const userId = process.getuid?.() ?? 0;
  return createLaunchd({ ...deps, userId: userId === 0 ? null : userId, processId: process.pid });
}
