/**
 * Who may do what with a real daemon, and what is said to those who may not: each suite's Nix, over the socket and over
 * `nix-daemon --stdio`, as root, as a trusted user and as any other.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { NixdeployError } from "../../src/errors.ts";
import { connectDaemon } from "../../src/nix/daemon/connect.ts";
import { DaemonError } from "../../src/nix/daemon/daemon-error.ts";
import type { PathInfo } from "../../src/nix/path-info.ts";
import { signPathInfo } from "../../src/nix/signature.ts";
import { formatPublicKey, publicKeyOf, secretKeyFromSeed } from "../../src/nix/signing-key.ts";
import { openDaemonSession, prepareStdioEnvironment, type Via } from "../support/daemon-session.ts";
import { createMachine, type Machine } from "../support/machine.ts";
import type { MachineUser } from "../support/machine-users.ts";
import { type NixDaemon, startNixDaemon } from "../support/nix-daemon.ts";
import { ensureNixOf, NIX_SUITES } from "../support/nix-versions.ts";
import { spawnProcess } from "../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";
import { createTinyPath, storePathFor } from "../support/tiny-path.ts";

setDefaultTimeout(60_000);

const signal = new AbortController().signal;
const ALICE: MachineUser = { name: "alice", id: 64_001 };
const MALLORY: MachineUser = { name: "mallory", id: 64_002 };
const KEY = secretKeyFromSeed("known-1", new Uint8Array(32).fill(3));

let directory: TemporaryDirectory;

beforeAll(async () => {
  directory = await createTemporaryDirectory("access");
});

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

/** A new path with one file. */
function makePath(name: string): { readonly info: PathInfo; readonly nar: () => AsyncIterable<Uint8Array> } {
  const { storePath, narHash, nar } = createTinyPath(name.replace(/[^A-Za-z0-9]+/g, "-"));
  const info = { storePath, narHash, narSizeBytes: nar.length, references: [], deriver: null, signatures: [] };
  return {
    info: { ...info, contentAddress: null },
    nar: async function* () {
      yield nar;
    },
  };
}

for (const suite of NIX_SUITES) {
  describe(`the Nix of ${suite}`, () => {
    let machine: Machine;
    let daemon: NixDaemon;

    beforeAll(async () => {
      machine = await createMachine({
        name: suite,
        directory: directory.join(suite),
        nix: await ensureNixOf(suite),
        users: [ALICE, MALLORY],
        nixConf: `trusted-users = root alice\ntrusted-public-keys = ${formatPublicKey(publicKeyOf(KEY))}\n`,
      });
      daemon = await startNixDaemon(machine);
    });

    afterAll(async () => {
      await daemon[Symbol.asyncDispose]();
      await machine[Symbol.asyncDispose]();
    });

    const table: readonly { who: string; user?: MachineUser; isTrusted: boolean; via: Via }[] = [
      { who: "root", isTrusted: true, via: "socket" },
      { who: "root", isTrusted: true, via: "stdio" },
      { who: "a trusted user", user: ALICE, isTrusted: true, via: "socket" },
      { who: "a trusted user", user: ALICE, isTrusted: true, via: "stdio" },
      { who: "any other user", user: MALLORY, isTrusted: false, via: "socket" },
      { who: "any other user", user: MALLORY, isTrusted: false, via: "stdio" },
    ];

    describe.each(table)("as $who over $via", ({ who, isTrusted, ...how }) => {
      test("the daemon says whether it trusts us, from 1.35 on", async () => {
        await using connection = await openDaemonSession(machine, how);
        const minor = Number(connection.protocolVersion.split(".")[1]);
        const answer = isTrusted ? "trusted" : "not-trusted";
        expect(connection.trust).toBe(minor < 35 ? "unknown" : answer);
        expect(connection.nixVersion).toBe(machine.nix.version);
      });

      test(`a path without signature is ${isTrusted ? "taken on our word" : "refused, whatever we ask for"}`, async () => {
        const { info, nar } = makePath(`unsigned ${who} ${how.via}`);
        await using connection = await openDaemonSession(machine, how);
        const error = await connection.addToStoreNar({ info, nar: nar(), checkSignatures: false }).then(
          () => null,
          (reason: unknown) => reason,
        );
        const isRefused = error instanceof DaemonError && error.isSignatureRefusal;
        expect({ error, isRefused }).toMatchObject({ isRefused: !isTrusted });
        if (isRefused) expect(error.hint).toContain("trusted-public-keys");
        // The connection stays usable, and the store tells the same.
        expect((await connection.queryValidPaths([info.storePath])).size).toBe(isTrusted ? 1 : 0);
      });

      test("a path signed by a key of nix.conf is taken, and can be read, protected and kept", async () => {
        const { info, nar } = makePath(`signed ${who} ${how.via}`);
        const signed = { ...info, signatures: [signPathInfo(info, KEY)] };
        await using connection = await openDaemonSession(machine, how);
        await connection.addTempRoots([info.storePath]);
        await connection.addToStoreNar({ info: signed, nar: nar(), checkSignatures: true });
        expect(await connection.queryPathInfo(info.storePath)).toEqual(signed);
        const chunks: Uint8Array[] = [];
        for await (const chunk of connection.narFromPath(info.storePath)) chunks.push(chunk.slice());
        expect(Buffer.concat(chunks).length).toBe(info.narSizeBytes);
        const link = `${how.user === undefined ? "/var/lib/nixdeploy" : machine.environmentOf(how.user.name)["HOME"]}/kept-${how.via}`;
        await machine.run(["ln", "-s", info.storePath, link], how.user === undefined ? {} : { user: how.user.name });
        await connection.addIndirectRoot(link);
        await machine.run(["nix-store", "--gc"]);
        expect((await connection.queryValidPaths([info.storePath])).size).toBe(1);
      });
    });

    test("root whom nix.conf does not trust is told what to do as everybody else", async () => {
      const nixConf = "trusted-users = alice\n";
      const nix = machine.nix;
      await using strict = await createMachine({
        name: "s",
        directory: directory.join(`${suite}-strict`),
        nix,
        nixConf,
      });
      await using _daemon = await startNixDaemon(strict);
      await using connection = await openDaemonSession(strict, { via: "socket" });
      const { info, nar } = makePath("strict");
      const adding = connection.addToStoreNar({ info, nar: nar(), checkSignatures: false });
      await expect(adding).rejects.toMatchObject({ isSignatureRefusal: true });
    });

    test("a user whom nix.conf does not allow is told so", async () => {
      const nixConf = "allowed-users = alice\n";
      const nix = machine.nix;
      const users = [MALLORY];
      const options = { name: "p", directory: directory.join(`${suite}-private`), nix, users, nixConf };
      await using closed = await createMachine(options);
      await using _daemon = await startNixDaemon(closed);
      const error = await openDaemonSession(closed, { via: "socket", user: MALLORY }).catch(
        (reason: unknown) => reason,
      );
      expect(String(error)).toContain("the daemon closed the connection");
      expect(error).toMatchObject({ kind: "host", hint: expect.stringContaining("allowed-users") });
    });

    test("a user without a daemon gets an error, not a store in his home", async () => {
      const nix = machine.nix;
      const options = { name: "n", directory: directory.join(`${suite}-none`), nix, users: [MALLORY] };
      await using machineWithout = await createMachine(options);
      const environment = await prepareStdioEnvironment(machineWithout, MALLORY);
      const connecting = connectDaemon({
        signal,
        environment: { ...environment, NIX_DAEMON_SOCKET_PATH: directory.join("absent.sock") },
      });
      await expect(connecting).rejects.toMatchObject({ kind: "host", message: expect.stringContaining("denied") });
    });
  });
}

describe("which way", () => {
  let machine: Machine;
  let daemon: NixDaemon;

  beforeAll(async () => {
    machine = await createMachine({ name: "device", directory: directory.join("device") });
    daemon = await startNixDaemon(machine);
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await machine[Symbol.asyncDispose]();
  });

  test("auto takes the socket where somebody listens", async () => {
    const socketPath = daemon.hostSocketPath;
    await using connection = await connectDaemon({ signal, socketPath, environment: { PATH: "/nowhere" } });
    expect(connection.nixVersion).toBe(machine.nix.version);
  });

  test.each([{ what: "there is no socket" }, { what: "nobody listens at it" }])(
    "auto starts its own daemon where $what",
    async ({ what }) => {
      const environment = await prepareStdioEnvironment(machine);
      const socketPath = directory.join("absent.sock");
      if (what.startsWith("nobody")) await leaveStaleSocket(socketPath);
      await using connection = await connectDaemon({
        signal,
        environment: { ...environment, NIX_DAEMON_SOCKET_PATH: socketPath },
      });
      expect(await connection.queryPathInfo(storePathFor("nothing"))).toBeNull();
    },
  );

  test("without socket and program it says what to install", async () => {
    const environment = { PATH: "/nowhere", NIX_STATE_DIR: directory.join("nothing") };
    const error = await connectDaemon({ signal, environment }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(NixdeployError);
    expect(String(error)).toContain(`nobody listens at ${directory.join("nothing/daemon-socket/socket")}`);
    expect(error).toMatchObject({ kind: "host", hint: expect.stringContaining("Install Nix 2.8") });
  });

  test("without a socket it says so when only the socket was wanted", async () => {
    const connecting = connectDaemon({ signal, via: "socket", socketPath: directory.join("no.sock"), environment: {} });
    await expect(connecting).rejects.toThrow(/cannot use the Nix daemon at \S+: there is no such socket/);
  });

  test("a program that dies is quoted", async () => {
    const program = directory.join("dying/nix-daemon");
    await mkdir(directory.join("dying"));
    await writeFile(program, "#!/bin/sh\necho 'error: the store is on fire' >&2\nexit 1\n");
    await chmod(program, 0o755);
    const environment = { PATH: `${directory.join("dying")}:/usr/bin:/bin` };
    await expect(connectDaemon({ signal, via: "stdio", environment })).rejects.toThrow("it said: the store is on fire");
  });
});

/** What a daemon leaves that was killed. */
async function leaveStaleSocket(path: string): Promise<void> {
  const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => console.log("listening"))`;
  await using listener = spawnProcess([process.execPath, "-e", script]);
  await listener.waitForLine(/listening/);
  listener.kill("SIGKILL");
  await listener.exited;
}
