/**
 * The environment of the programs that the agent runs: its own, without the agent's credentials and without what a
 * service manager or a shell meant for the agent alone, and with the places where Nix and NixOS keep programs. Pure.
 */

/** Ours, secrets above all; systemd's notes to the agent's own unit; switches of NixOS that must not be inherited. */
const NOT_INHERITED =
  /^(NIXDEPLOY_((.*_)?(TOKEN|KEY)(_FILE)?|BOOTSTRAP)|CREDENTIALS_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_(FDS|PID|FDNAMES)|INVOCATION_ID|JOURNAL_STREAM|MAINPID|SYSTEMD_EXEC_PID|MEMORY_PRESSURE_.*|NIXOS_INSTALL_BOOTLOADER|NIXOS_NO_CHECK|NIXOS_ACTION|BUN_.*|PATH)$/;

/** After the agent's own PATH, because services often have a short one. */
const PROGRAM_DIRECTORIES = [
  "/run/wrappers/bin",
  "/run/current-system/sw/bin",
  "/nix/var/nix/profiles/default/bin",
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
] as const;

export function cleanEnvironment(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const clean: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    if (value !== undefined && !NOT_INHERITED.test(name)) clean[name] = value;
  }
  const own = (environment["PATH"] ?? "").split(":").filter((directory) => directory !== "");
  clean["PATH"] = [...new Set([...own, ...PROGRAM_DIRECTORIES])].join(":");
  return clean;
}
