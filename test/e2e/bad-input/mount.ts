/** A small disk that can be filled: a tmpfs in the builder's mount namespace. It goes with the machine. */
import type { Machine } from "../../support/machine.ts";

export type SmallDisk = {
  /** As programs on the machine see it. */
  readonly path: string;
  /** Leaves so much free, by a file that takes the rest. */
  fill(freeKib: number): Promise<void>;
  /** Takes that file away. */
  empty(): Promise<void>;
  setReadOnly(): Promise<void>;
};

export async function mountSmallDisk(machine: Machine, options: { path: string; sizeKib: number }): Promise<SmallDisk> {
  const { path, sizeKib } = options;
  const shell = (script: string, ...words: readonly string[]) => machine.run(["sh", "-euc", script, path, ...words]);
  await shell('mkdir -p "$0"; mount --no-mtab -t tmpfs -o "size=$1k,mode=755" none "$0"', String(sizeKib));
  return {
    path,
    fill: async (freeKib) => {
      await shell(
        'cd "$0"; rm -f filler; dd if=/dev/zero of=filler bs=1k 2>/dev/null || true; truncate -s "-$(($1 * 1024))" filler',
        String(freeKib),
      );
    },
    empty: async () => {
      await shell('rm -f "$0/filler"');
    },
    setReadOnly: async () => {
      await shell('mount --no-mtab -o remount,ro "$0"');
    },
  };
}
