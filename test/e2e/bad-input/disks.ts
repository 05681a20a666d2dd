/** Full and read-only disks, with real ENOSPC and EROFS: the sentence, and that all goes on once there is room. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { runChecked, type SpawnedProcess } from "../../support/processes.ts";
import { mountSmallDisk } from "./mount.ts";
import { expectOneError } from "./verdict.ts";
import type { World } from "./world.ts";

const FULL = "no space is left on the device";
/** What a start needs at its steps: lock, database, its tables, its first rows. */
const FREE_KIB = [0, 4, 16, 40, 100, 200];

export function testDisks(getWorld: () => World): void {
  const serveOn = (dataDirectory: string): SpawnedProcess => {
    const { fleet, values } = getWorld();
    const command = [values["nixdeploy"] ?? "", "serve", "--listen", "127.0.0.1:0", "--data-dir", dataDirectory];
    return fleet.builder.spawn(command);
  };
  const readyUrl = async (process: SpawnedProcess) =>
    (await process.waitForLine(/^coordinator ready: (\S+)$/, { timeoutMs: 20_000 }))[1] ?? "";

  describe("a full disk", () => {
    test.concurrent.each(FREE_KIB)("serve cannot begin with %d KiB, and can with room", async (freeKib) => {
      const world = getWorld();
      const { builder } = world.fleet;
      const disk = await mountSmallDisk(builder, { path: world.newDirectory(), sizeKib: 4_096 });
      const data = join(disk.path, "data");
      await builder.run(["mkdir", data]);
      await disk.fill(freeKib);
      const row = {
        what: "",
        command: `serve --listen 127.0.0.1:0 --data-dir ${data}`,
        exitCode: 1,
        says: "no space is left on",
      } as const;
      expectOneError(await world.run(row, data), { ...row, secrets: world.secrets });
      await disk.empty();
      await using process = serveOn(data);
      expect(await readyUrl(process)).toStartWith("http://");
    });

    test.concurrent("the coordinator's, during push and other writes", async () => {
      const world = getWorld();
      const { fleet, secrets } = world;
      const disk = await mountSmallDisk(fleet.builder, { path: world.newDirectory(), sizeKib: 6_144 });
      const data = join(disk.path, "data");
      await using coordinator = serveOn(data);
      const url = await readyUrl(coordinator);
      const token = (await fleet.builder.run(["cat", join(data, "admin-token")])).trim();
      const run = (...words: readonly string[]) => fleet.run(words, { url, token });
      const small = await fleet.builder.build("app", { name: "small", version: "1" });
      const large = await addRandomFile(world, { name: "large", sizeKib: 12_288 });
      expect((await run("push", small)).exitCode).toBe(0);

      const verdict = {
        exitCode: 1,
        says: "cannot store the NAR: writing failed (ENOSPC)",
        secrets: [...secrets, token],
      };
      expectOneError(withoutNotes(await run("push", large)), { ...verdict, hint: "The coordinator's disk is full" });
      expect(await fleet.builder.run(["find", join(data, "nars/incoming"), "-type", "f"])).toBe("");
      expect(await fleet.builder.run(["find", join(data, "nars"), "-name", "*.nar.zst", "-size", "+1024k"])).toBe("");

      await disk.fill(0);
      const noDatabase = { ...verdict, says: `cannot use the coordinator's database: ${FULL}` };
      expectOneError(await run("token", "create", "--kind", "push"), noDatabase);
      expect((await run("cache", "show", "default")).exitCode).toBe(0);
      await disk.empty();
      expect((await run("token", "create", "--kind", "push")).exitCode).toBe(0);
      expect((await run("push", "--dry-run", small)).stdout).toBe("");
      expect((await coordinator.stop()).exitCode).toBe(0);
      expect(coordinator.output()).not.toMatch(/bug|\n\s+at /);
    });

    test.concurrent("the agent's, from its key to its deployments", async () => {
      const world = getWorld();
      const { fleet, values } = world;
      const disk = await mountSmallDisk(fleet.builder, { path: world.newDirectory(), sizeKib: 1_024 });
      const profile = join(world.newDirectory(), "profile");
      const state = join(disk.path, "state");
      await fleet.builder.run(["mkdir", "-m", "700", state]);
      const words = ["agent", "--name", "crowded", "--profile", profile, "--state-dir", state];
      const env = { NIXDEPLOY_URL: values["url"] ?? "", NIXDEPLOY_AGENT_TOKEN: values["agent-token"] ?? "" };
      const start = () => fleet.builder.spawn([values["nixdeploy"] ?? "", ...words], { env });

      await disk.fill(0);
      const row = {
        what: "",
        command: words,
        env,
        exitCode: 1,
        says: `cannot write the agent's key ${state}/key: ${FULL}`,
      } as const;
      expectOneError(await world.run(row, state), { ...row, secrets: world.secrets });
      expect(await fleet.builder.run(["ls", "-A", state])).toBe("lock");

      await disk.fill(4);
      await using first = start();
      await first.waitForLine(
        /^warn: cannot record what the welcome says: no space is left on the device; trying again$/,
      );
      await disk.empty();
      await first.waitForLine(/^connected to/, { timeoutMs: 20_000 });

      const path = values["path"] ?? "";
      await fleet.expectRun(["push", path]);
      await disk.fill(0);
      // Nobody waits for the disk: it has failed, with nothing touched.
      const failed = await fleet.run(["activate", `crowded=${path}`]);
      expect(failed.exitCode).toBe(1);
      expect(failed.stdout).toMatch(
        /failed .* Cannot begin a deployment in .*: no space is left on the device; nothing/,
      );
      expect(await fleet.builder.link(profile)).toBeNull();
      expect(await fleet.builder.run(["find", join(state, "deployments"), "-name", "offer.json"])).toBe("");
      await disk.empty();
      await fleet.expectRun(["activate", `crowded=${path}`]);
      expect(await fleet.builder.link(profile)).toBe(path);
      expect((await first.stop()).exitCode).toBe(0);
    });
  });

  test.concurrent("a read-only disk", async () => {
    const world = getWorld();
    const disk = await mountSmallDisk(world.fleet.builder, { path: world.newDirectory(), sizeKib: 1_024 });
    await world.fleet.builder.run(["mkdir", "-m", "700", join(disk.path, "data"), join(disk.path, "state")]);
    await disk.setReadOnly();
    const readOnly = "the file system is read-only";
    for (const [command, says] of [
      ["serve --listen 127.0.0.1:0 --data-dir {new}/data", `cannot use the data directory {new}/data: ${readOnly}`],
      ["serve --listen 127.0.0.1:0 --data-dir {new}/other", `cannot use the data directory {new}/other: ${readOnly}`],
      ["token list --data-dir {new}/data", `cannot use the data directory {new}/data: ${readOnly}`],
      [
        "agent --name n --profile {rows}/p --state-dir {new}/state",
        `cannot write the lock {new}/state/lock: ${readOnly}`,
      ],
      [
        "agent --name n --profile {new}/profile --state-dir {rows}/s",
        `cannot write the lock {new}/profile.nixdeploy-lock: ${readOnly}`,
      ],
    ] as const) {
      const result = await world.run({ what: "", command, exitCode: 1, says }, disk.path);
      expectOneError(result, { exitCode: 1, says: world.fill(says, { new: disk.path }), secrets: world.secrets });
    }
  });
}

/** Incompressible. */
async function addRandomFile(world: World, file: { readonly name: string; readonly sizeKib: number }): Promise<string> {
  const path = join(world.values["rows"] ?? "", file.name);
  await runChecked(["dd", "if=/dev/urandom", `of=${path}`, "bs=1k", `count=${file.sizeKib}`]);
  return await world.fleet.builder.run(["nix-store", "--add", path]);
}

/** Lines of progress come before the sentence. */
function withoutNotes<Result extends { readonly stderr: string }>(result: Result): Result {
  const at = result.stderr.indexOf("nixdeploy: ");
  return { ...result, stderr: result.stderr.slice(Math.max(at, 0)) };
}
