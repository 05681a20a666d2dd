/**
 * `nixdeploy copy` with a real sshd and the Nix of another suite at its end, which has nothing of ours: to it, from it, to
 * several, what is refused, and what breaks. The rows of docs/copy.md.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { z } from "zod";
import { type Builder, createBuilder } from "../support/builder.ts";
import { addBigPath, addClosure } from "../support/closure.ts";
import { createDevice, type Device } from "../support/device.ts";
import { BINARY } from "../support/fleet.ts";
import { ensureNixOf } from "../support/nix-versions.ts";
import { type SshServer, startSshServer } from "../support/ssh-server.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { waitFor } from "../support/wait-for.ts";

const ALICE = { name: "alice", id: 64_001 };
const MALLORY = { name: "mallory", id: 64_002 };

let stack: AsyncDisposableStack;
let directory: string;
let builder: Builder;
let nuc: Device;
let ssh: SshServer;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  directory = stack.use(await createTemporaryDirectory("copy")).path;
  builder = stack.use(await createBuilder({ directory: join(directory, "builder") }));
  nuc = stack.use(
    await createDevice({
      ...{ name: "nuc", directory: join(directory, "nuc"), nix: await ensureNixOf("trixie") },
      ...{ users: [ALICE, MALLORY], nixConf: "trusted-users = root alice\n" },
    }),
  );
  await nuc.startDaemon();
  ssh = stack.use(await startSshServer(nuc, { users: ["alice", "mallory"] }));
}, 120_000);
afterAll(async () => {
  await stack[Symbol.asyncDispose]();
}, 30_000);

const copy = (words: readonly string[], options: Parameters<Builder["exec"]>[1] = {}) =>
  builder.exec([BINARY, "copy", ...words], {
    timeoutMs: 60_000,
    ...options,
    env: { ...ssh.client, ...options.env },
  });
const resultSchema = z.object({
  paths: z.array(z.string()),
  hosts: z.array(z.object({ host: z.string(), paths: z.number(), copied: z.number(), bytes: z.number() })),
  failed: z.array(z.object({ host: z.string(), error: z.string() })),
});

describe("to a host with Nix and nothing of ours", () => {
  test("root gets the whole closure, then only what is missing, then nothing", async () => {
    const [first, second] = [
      await builder.build("app", { name: "hello", version: "1" }),
      await builder.build("app", { name: "hello", version: "2" }),
    ];
    const one = await copy(["--to", ssh.address("root"), first]);
    expect(one).toMatchObject({ exitCode: 0, stdout: `${first}\n` });
    expect(one.stderr).toContain(`${ssh.name("root")}: copied 4 paths`);
    expect(await nuc.run([`${first}/bin/hello`])).toBe("hello 1");
    const two = await copy(["--to", ssh.address("root"), second, "--json"]);
    expect(resultSchema.parse(JSON.parse(two.stdout)).hosts).toMatchObject([{ paths: 4, copied: 3 }]);
    const three = await copy(["--to", ssh.address("root"), second]);
    expect(three.stderr).toContain("nothing to copy, all 4 paths are there");
    await nuc.run(["nix-store", "--verify", "--check-contents"]);
  });

  test("a derivation goes with all that is needed to build it, and is built there", async () => {
    const app = await builder.build("app", { name: "source", version: "1" });
    const derivation = await builder.run(["nix-store", "--query", "--deriver", app]);
    expect(await copy(["--to", ssh.address("root"), derivation])).toMatchObject({ exitCode: 0 });
    const needed = (await builder.run(["nix-store", "--query", "--requisites", derivation])).split("\n");
    expect(needed.length).toBeGreaterThan(3);
    await nuc.run(["nix-store", "--check-validity", ...needed]);
    expect(await nuc.link(app)).toBeNull();
    expect(await nuc.run(["nix-store", "--realise", derivation])).toBe(app);
  });

  test("paths come from standard input, too, and hosts may stand among the paths", async () => {
    const path = await builder.build("app", { name: "stdin", version: "1" });
    expect(await copy([ssh.address("root")], { input: `${path}\n` })).toMatchObject({
      exitCode: 0,
      stdout: `${path}\n`,
    });
    await nuc.run(["nix-store", "--check-validity", path]);
  });

  test("several hosts at once: one that is away holds up none of the others", async () => {
    const path = await builder.build("app", { name: "several", version: "1" });
    const hosts = [ssh.address("root"), "ssh://root@127.0.0.1:1", ssh.address("alice")];
    const result = await copy([...hosts.flatMap((host) => ["--to", host]), path, "--json"]);
    expect(result.exitCode).toBe(75);
    expect(result.stderr).toContain("cannot copy to 1 of 3 hosts: the others are done");
    expect(result.stderr).toContain(
      "root@127.0.0.1:1: cannot reach root@127.0.0.1:1 by ssh: the connection was refused",
    );
    const { hosts: done, failed } = resultSchema.parse(JSON.parse(result.stdout));
    expect(done.map(({ host }) => host)).toEqual([ssh.name("root"), ssh.name("alice")]);
    expect(failed).toHaveLength(1);
    await nuc.run(["nix-store", "--check-validity", path]);
  });
});

describe("by somebody's own ssh configuration", () => {
  test.each([
    ["persists", "a connection that is shared, and that stays", ["ControlMaster auto", "ControlPersist 30"]],
    ["named", "a shared connection that nobody makes", ["ControlMaster no"]],
    ["terminal", "what is for a terminal", ["RemoteCommand htop", "RequestTTY force"]],
  ])("%s: %s", async (name, _what, lines) => {
    // A port that is taken: a forward that another connection has already.
    const forward = [`LocalForward 127.0.0.1:${ssh.port} 127.0.0.1:1`, "ExitOnForwardFailure yes"];
    const control = `ControlPath ${join(directory, name)}`;
    const client = await ssh.clientWith({ lines: [...lines, ...forward, control] });
    const path = await builder.build("app", { name: `config-${name}`, version: "1" });
    expect(await copy(["--to", ssh.address("root"), path, "--profile", name], { env: client })).toMatchObject({
      exitCode: 0,
    });
    await nuc.run(["nix-store", "--check-validity", path]);
    const words = [...client.NIX_SSHOPTS.split(" "), "-O", "exit", "-p", String(ssh.port), "root@127.0.0.1"];
    await builder.exec(["ssh", ...words]);
  });
});

describe("from a host", () => {
  test("the closure comes here, signed over there, and nothing comes twice", async () => {
    const file = join(nuc.directory, "note");
    await Bun.write(file, "made on the nuc");
    const path = await nuc.run(["nix-store", "--add", file]);
    const profile = await addClosure(nuc, { name: "there", pathCount: 8, sizeBytes: 200_000 });
    const first = await copy(["--from", ssh.address("root"), path, profile]);
    expect(first).toMatchObject({ exitCode: 0, stdout: `${path}\n${profile}\n` });
    expect(await builder.run(["cat", path])).toBe("made on the nuc");
    expect(await builder.run(["nix", "path-info", "--sigs", profile])).toContain("nuc-copy-1:");
    // The secret stays where it was made.
    expect(await nuc.run(["stat", "-c", "%a", "/var/lib/nixdeploy/copy/signing-key"])).toBe("600");
    expect(await builder.exec(["grep", "-rqsF", "nuc-copy-1", "/var/lib/nixdeploy"])).toMatchObject({
      exitCode: 1,
    });
    expect((await copy(["--from", ssh.address("root"), profile])).stderr).toContain("nothing to copy, all 8 paths");
  });

  test("a path that is not there is named", async () => {
    const path = await builder.build("app", { name: "nowhere", version: "1" });
    const { exitCode, stderr } = await copy(["--from", ssh.address("root"), path]);
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: expect.stringContaining(`cannot copy ${path}: it is not in the Nix store of ${ssh.name("root")}`),
    });
  });
});

describe("a copy that breaks", () => {
  const closure = (name: string) => addClosure(builder, { name, pathCount: 60, sizeBytes: 24_000_000 });
  const there = async (paths: readonly string[]) => {
    const valid = await nuc.exec(["nix-store", "--check-validity", "--print-invalid", ...paths]);
    return paths.length - valid.stdout.split("\n").filter((line) => line !== "").length;
  };
  /** Starts it, and waits until something of it has arrived. */
  const startHalf = async (top: string) => {
    const paths = (await builder.run(["nix-store", "--query", "--requisites", top])).split("\n");
    const command = builder.spawn([BINARY, "copy", "--jobs", "2", "--to", ssh.address("root"), top], {
      env: ssh.client,
    });
    await waitFor("some paths to arrive", async () => (await there(paths)) > 2, {
      timeoutMs: 30_000,
      describe: command.output,
    });
    return { command, paths };
  };

  test("by kill -9 goes on where it was when it is called again", async () => {
    const top = await closure("killed");
    const { command, paths } = await startHalf(top);
    command.kill("SIGKILL");
    await command.exited;
    await waitFor("its connection to be gone", async () => {
      const lines = await Promise.all(
        builder.processes().map((id) =>
          Bun.file(`/proc/${id}/cmdline`)
            .text()
            .catch(() => ""),
        ),
      );
      return !lines.some((line) => line.startsWith("ssh\0"));
    });
    const before = await there(paths);
    expect(before).toBeLessThan(60);
    const again = await copy(["--to", ssh.address("root"), top, "--json"]);
    const [host] = resultSchema.parse(JSON.parse(again.stdout)).hosts;
    expect(host?.paths).toBe(60);
    expect(host?.copied).toBeLessThanOrEqual(60 - before);
    expect(await there(paths)).toBe(60);
    await nuc.run(["nix-store", "--verify", "--check-contents"]);
  });

  test("by a lost connection goes on by itself", async () => {
    const top = await closure("cut");
    const { command, paths } = await startHalf(top);
    for (const id of nuc.processes()) {
      const line = await Bun.file(`/proc/${id}/cmdline`)
        .text()
        .catch(() => "");
      if (/^sshd: root/.test(line)) process.kill(id, "SIGKILL");
    }
    await command.waitForLine(/connection was lost, going on with what is missing/, { timeoutMs: 30_000 });
    expect(await command.exited).toMatchObject({ exitCode: 0 });
    expect(await there(paths)).toBe(60);
  });

  test("by an interrupt ends at once, and leaves no connection", async () => {
    const { command } = await startHalf(await closure("interrupted"));
    command.kill("SIGINT");
    expect(await command.exited).toMatchObject({ exitCode: 130 });
    await waitFor("the daemons over there to be gone", async () => {
      const lines = await Promise.all(
        nuc.processes().map((id) =>
          Bun.file(`/proc/${id}/cmdline`)
            .text()
            .catch(() => ""),
        ),
      );
      return !lines.some((line) => line.includes("--stdio"));
    });
  });
});

describe("what does not get through says why, and what to try", () => {
  const fails = async (words: readonly string[], env: Readonly<Record<string, string>> = {}) => {
    const result = await copy(words, { env });
    expect(result.stdout).toBe("");
    return { exitCode: result.exitCode, stderr: result.stderr };
  };
  let path: string;
  beforeAll(async () => {
    path = await builder.build("app", { name: "refused", version: "1" });
  });

  test("a host key that is not known", async () => {
    const client = await ssh.clientWith({ knownHosts: "empty" });
    const { exitCode, stderr } = await fails(["--to", ssh.address("root"), path], client);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("by ssh: its host key is not known here");
    expect(stderr).toContain("1. Connect once by hand and compare the fingerprint: ssh root@127.0.0.1");
  });

  test("a host key that has changed", async () => {
    const other = (await Bun.file(join(nuc.directory, "sshd/client_key.pub")).text()).trim();
    await Bun.write(join(nuc.directory, "sshd/changed"), `[127.0.0.1]:${ssh.port} ${other}\n`);
    const { exitCode, stderr } = await fails(
      ["--to", ssh.address("root"), path],
      await ssh.clientWith({ knownHosts: "changed" }),
    );
    expect(exitCode).toBe(1);
    expect(stderr).toContain("its host key is another one than before");
    expect(stderr).toContain("ssh-keygen -R");
  });

  test("a login that is refused", async () => {
    const { exitCode, stderr } = await fails(
      ["--to", ssh.address("root"), path],
      await ssh.clientWith({ hasKey: false }),
    );
    expect(exitCode).toBe(77);
    expect(stderr).toContain("it refuses the login");
    expect(stderr).toContain("1. Does the same user get in by hand?");
  });

  test("a name that nobody has", async () => {
    const { exitCode, stderr } = await fails(["--to", "nobody.invalid", path]);
    expect(exitCode).toBe(75);
    expect(stderr).toContain("cannot reach nobody.invalid by ssh: its name is unknown (DNS)");
  });

  test("a host without Nix", async () => {
    await using bare = await createDevice({ name: "bare", directory: join(directory, "bare") });
    await bare.run(["mount", "--bind", "/dev/null", "/usr/bin/nix-daemon"]);
    await using server = await startSshServer(bare);
    const { exitCode, stderr } = await fails(["--to", server.address("root"), path], server.client);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`cannot use Nix on ${server.name("root")}: there is no nix-daemon`);
    expect(stderr).toContain("1. Install Nix 2.8 or newer there");
  });

  test("a disk that is full, before the first byte", async () => {
    await using small = await createDevice({ name: "small", directory: join(directory, "small") });
    await small.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", "/nix/store"]);
    await using server = await startSshServer(small);
    const big = await addBigPath(builder, { name: "too-big", sizeBytes: 20_000_000 });
    const { exitCode, stderr } = await fails(["--to", server.address("root"), big], server.client);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("the disk is full: it needs 22.0 MB");
  });
});
