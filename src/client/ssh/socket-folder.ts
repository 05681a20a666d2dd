/**
 * Where the sockets of our shared ssh connections are: one folder for each user, which stays, so that nothing is left behind
 * by who is killed (ssh removes its socket itself). In /tmp, because the path of a socket may not be long.
 */
import { lstat, mkdir, mkdtemp } from "node:fs/promises";
import { join } from "node:path";

/** @returns a folder that only this user can use; a new one where somebody else has made the usual one */
export async function openSocketFolder(temporary = "/tmp"): Promise<string> {
  const uid = process.getuid?.() ?? 0;
  const path = join(temporary, `nixdeploy-ssh-${uid}`);
  await mkdir(path, { mode: 0o700 }).catch(() => {
    // It is there, whose it is is seen below; or there is no room, which the next line says.
  });
  const found = await lstat(path).catch(() => null);
  const isOurs = found?.isDirectory() === true && found.uid === uid && (found.mode & 0o077) === 0;
  return isOurs ? path : await mkdtemp(`${path}-`);
}
