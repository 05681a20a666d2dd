/**
 * A real sudo on a machine, whose rules and passwords are its own: some users are asked nothing, others for a password. The
 * host's /etc is covered inside only.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ensureDebianPackages } from "./debian.ts";
import type { Machine } from "./machine.ts";

export type SudoOptions = {
  /** Users who are asked nothing. */
  readonly free?: readonly string[];
  /** Users who are asked, and the password of all of them; letters and dashes. */
  readonly asked?: { readonly users: readonly string[]; readonly password: string };
};

export async function prepareSudo(machine: Machine, { free = [], asked }: SudoOptions): Promise<void> {
  await ensureDebianPackages(["sudo"]);
  const write = async (name: string, lines: readonly string[], mode: number) => {
    const path = join(machine.directory, name);
    await writeFile(path, `${lines.join("\n")}\n`, { mode });
    return path;
  };
  const sudoers = await write(
    "sudoers",
    [
      // Where the machine's Nix is, and its configuration, stands in the environment.
      'Defaults env_keep += "NIX_CONF_DIR XDG_STATE_HOME PATH", !secure_path',
      ...free.map((user) => `${user} ALL=(ALL) NOPASSWD: ALL`),
      ...(asked?.users ?? []).map((user) => `${user} ALL=(ALL) ALL`),
    ],
    0o440,
  );
  const check = await write(
    "password",
    ["#!/bin/sh", "read -r word || :", `[ "$word" = "${asked?.password}" ]`],
    0o755,
  );
  const auth = asked === undefined ? "pam_deny.so" : `pam_exec.so quiet expose_authtok ${check}`;
  const pam = await write(
    "pam-sudo",
    [`auth required ${auth}`, "account required pam_permit.so", "session required pam_permit.so"],
    0o644,
  );
  await machine.run(["mount", "--bind", sudoers, "/etc/sudoers"]);
  await machine.run(["mount", "--bind", pam, "/etc/pam.d/sudo"]);
}
