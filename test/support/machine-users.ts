/**
 * People on a machine (machine.ts) who are not root: known to the machine alone, each with a home, and with a way to
 * what is theirs. Nothing of it is seen outside: the files are mounted over /etc/passwd and /etc/group inside.
 */
import { chown, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

export type MachineUser = {
  readonly name: string;
  /** Of user and group; better none that this system knows. */
  readonly id: number;
};

const CHECKOUT = resolve(import.meta.dir, "../..");
/** What users run: the binary, and the Nix of other suites. */
const PROGRAM_FOLDERS = [join(CHECKOUT, "dist"), join(CHECKOUT, ".toolchain")];

export function homeOf(user: string, machineDirectory: string): string {
  return join(machineDirectory, "homes", user);
}

/** Makes homes, and the machine's passwd and group: this system's with its users added. */
export async function prepareUsers(machineDirectory: string, users: readonly MachineUser[]): Promise<void> {
  const lines = { passwd: "", group: "" };
  for (const { name, id } of users) {
    const home = homeOf(name, machineDirectory);
    await mkdir(home, { recursive: true });
    await chown(home, id, id);
    lines.passwd += `${name}:x:${id}:${id}::${home}:/bin/sh\n`;
    lines.group += `${name}:x:${id}:\n`;
  }
  for (const [file, added] of Object.entries(lines)) {
    await writeFile(join(machineDirectory, file), (await readFile(join("/etc", file), "utf8")) + added);
  }
}

/** A command prefix: what follows goes on as one of `users`, without any right of root. */
export function becomeUser(users: readonly MachineUser[], name: string): string[] {
  const user = users.find((one) => one.name === name);
  if (user === undefined) throw new Error(`cannot run a command as ${name}: the machine has no such user`);
  const id = String(user.id);
  return ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"];
}

/**
 * Mounts that let everybody reach the machine's folder and the programs below folders that only their owner may enter
 * (temporary directories, root's home): each such folder is covered by an empty one, and the needed ones are bound back.
 */
export async function planOpenWay(machineDirectory: string): Promise<{ covered: string[]; kept: string[] }> {
  const kept = [machineDirectory, ...PROGRAM_FOLDERS];
  const covered = new Set<string>();
  for (const folder of kept) {
    await mkdir(folder, { recursive: true });
    const closed = await findClosedFolder(dirname(folder));
    if (closed !== null) covered.add(closed);
  }
  return { covered: [...covered], kept };
}

/** The uppermost of `folder` and the folders above it that other users may not enter. */
async function findClosedFolder(folder: string): Promise<string | null> {
  if (folder === "/") return null;
  const above = await findClosedFolder(dirname(folder));
  if (above !== null) return above;
  return ((await stat(folder)).mode & 0o001) === 0 ? folder : null;
}
