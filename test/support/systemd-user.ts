/**
 * A person on a box (systemd-box.ts) whose own service manager runs without anybody being logged in: `loginctl
 * enable-linger`, by the real logind. Their home is on the box's disk.
 */
import { appendFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Builder } from "./builder.ts";
import type { RunOptions, RunResult } from "./processes.ts";
import { checkResult } from "./processes.ts";
import type { SystemdBox } from "./systemd-box.ts";
import { waitFor } from "./wait-for.ts";

export type SystemdUser = {
  readonly home: string;
  exec(command: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Like `exec`, but throws with the output unless the exit code is 0; returns stdout without the last newline. */
  run(command: readonly string[], options?: RunOptions): Promise<string>;
  /** One property of a unit of theirs. */
  unit(name: string, property: string): Promise<string>;
  writeFile(name: string, text: string): Promise<void>;
};

/** Makes the person on a box that is on, and tells its nix-daemon to trust them. */
export async function addSystemdUser(
  box: SystemdBox,
  { name, id }: { readonly name: string; readonly id: number },
): Promise<SystemdUser> {
  const home = `/var/lib/nixdeploy/${name}`;
  await box.run(["groupadd", "--gid", `${id}`, name]);
  await box.run(["useradd", "--uid", `${id}`, "--gid", `${id}`, "--no-create-home", "--home-dir", home, name]);
  await box.run(["install", "--directory", `--owner=${name}`, `--group=${name}`, home]);
  await appendFile(join(box.directory, "etc-nix/nix.conf"), `trusted-users = root ${name}\n`);
  await box.run(["systemctl", "restart", "nix-daemon.service"]);
  await box.run(["loginctl", "enable-linger", name]);
  const environment = [`HOME=${home}`, `USER=${name}`, `XDG_RUNTIME_DIR=/run/user/${id}`];
  const become = ["setpriv", "--reuid", `${id}`, "--regid", `${id}`, "--clear-groups", "--", "env", ...environment];
  const exec: SystemdUser["exec"] = (command, options) => box.exec([...become, ...command], options);
  const run: SystemdUser["run"] = async (command, options) =>
    checkResult([`[${name}]`, ...command], await exec(command, options));
  await waitFor(`the service manager of ${name}`, () => exec(["systemctl", "--user", "is-active", "default.target"]), {
    until: (result) => result.exitCode === 0,
    describe: () => "see systemctl status user@",
  });
  return {
    home,
    exec,
    run,
    unit: (unit, property) => run(["systemctl", "--user", "show", `--property=${property}`, "--value", unit]),
    writeFile: async (file, text) => {
      const path = `${home}/${file}`;
      await writeFile(box.diskPath(path), text);
      await box.run(["chown", `${name}:${name}`, path]);
    },
  };
}

/** Copies a closure into the store of a box that is on. */
export async function importToBox(box: SystemdBox, builder: Builder, storePath: string): Promise<void> {
  const file = "/var/lib/nixdeploy/import.nixexport";
  const script = 'exec nix-store --export $(nix-store --query --requisites "$1") > "$0"';
  await builder.run(["/bin/sh", "-euc", script, box.diskPath(file), storePath]);
  await box.run(["/bin/sh", "-euc", `exec nix-store --import < ${file}`]);
  await rm(box.diskPath(file));
}
