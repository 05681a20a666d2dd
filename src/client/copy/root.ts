/**
 * Becoming root on a machine: by being root, by a sudo that asks nothing, or by its password, which is asked for once, tried,
 * and then given to sudo on its standard input; it is never on a command line and never kept.
 */
import { NixdeployError } from "../../errors.ts";
import { numbered } from "../ssh/ssh-failure.ts";
import type { Probe } from "./probe.ts";
import type { Side } from "./side.ts";

export type RootOptions = {
  readonly side: Side;
  readonly probe: Pick<Probe, "uid" | "sudo" | "user">;
  /** What was typed at the terminal without being shown; null: nobody can be asked. */
  readonly askSecret: (question: string) => Promise<string | null>;
  readonly signal: AbortSignal;
};

/** Whether scripts of this side may be run as root from now on: "is" root without sudo, by "sudo", or "cannot". */
export async function becomeRoot(options: RootOptions): Promise<"is" | "sudo" | "cannot"> {
  const { side, probe, askSecret, signal } = options;
  if (probe.uid === 0) return "is";
  if (probe.sudo === "free" || side.sudo.password !== null) return "sudo";
  if (probe.sudo === "none") return "cannot";
  const password = await askSecret(`Password of ${probe.user} on ${side.name}, for sudo: `);
  if (password === null || password === "") return "cannot";
  side.sudo.password = password;
  const tried = await side.run({ text: "exit 0", asRoot: true }, signal);
  if (tried.code === 0) return "sudo";
  side.sudo.password = null;
  throw new NixdeployError("denied", `cannot become root on ${side.name}: sudo refuses ${probe.user}`, {
    details: numbered(["Was the password right?", `May ${probe.user} use sudo there? sudo -l`]),
  });
}

/**
 * Whether it takes `sudo`; false for root himself.
 * @param what completes "cannot … on HOST"
 * @throws NixdeployError("denied") when there is no way to become root
 */
export async function needRoot(what: string, options: RootOptions): Promise<boolean> {
  const { side, probe } = options;
  const way = await becomeRoot(options);
  if (way !== "cannot") return way === "sudo";
  const why =
    probe.sudo === "asks"
      ? `it takes root, and sudo wants the password of ${probe.user}, for which nobody can be asked here`
      : `it takes root, and there is no sudo for ${probe.user}`;
  throw new NixdeployError("denied", `cannot ${what} on ${side.name}: ${why}`, {
    details: numbered([
      `Log in as root: ssh://root@${side.name.replace(/^.*@/, "")}`,
      ...(probe.sudo === "asks" ? ["Do it at a terminal, where the password can be typed"] : []),
      `Let ${probe.user} use sudo without a password there: a line \`${probe.user} ALL=(ALL) NOPASSWD: ALL\` in sudoers (on NixOS: security.sudo.wheelNeedsPassword = false)`,
    ]),
  });
}
