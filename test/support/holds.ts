/**
 * Stops a script of the NixOS-like system at a chosen point for as long as a test wants: the fault `hold NAME` of
 * test/fixtures/nix/system/faults.sh. Without `set` the script passes the point.
 */
import { chmod, mkdir, rm, stat, writeFile } from "node:fs/promises";
import type { Machine } from "./machine.ts";
import { waitFor } from "./wait-for.ts";

export type Holds = {
  /** From now on a script that comes to this point stays there. */
  set(name: string): Promise<void>;
  /** Waits until a script is there. */
  reached(name: string, describe?: () => string): Promise<void>;
  release(name: string): Promise<void>;
  releaseAll(): Promise<void>;
};

const DIRECTORY = "/run/hold";

export function createHolds(machine: Pick<Machine, "hostPath">): Holds {
  const file = (name: string) => machine.hostPath(`${DIRECTORY}/${name}`);
  return {
    async set(name) {
      await mkdir(machine.hostPath(DIRECTORY), { recursive: true });
      // Scripts of users say there that they have come.
      await chmod(machine.hostPath(DIRECTORY), 0o777);
      await rm(file(`${name}.reached`), { force: true });
      await writeFile(file(name), "");
    },
    async reached(name, describe) {
      const look = async () => (await stat(file(`${name}.reached`))).isFile();
      await waitFor(`a script to come to ${name}`, look, {
        timeoutMs: 40_000,
        ...(describe === undefined ? {} : { describe }),
      });
    },
    release: (name) => rm(file(name), { force: true }),
    releaseAll: () => rm(machine.hostPath(DIRECTORY), { recursive: true, force: true }),
  };
}
