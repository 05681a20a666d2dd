/** The opening of the worker protocol against scripted daemons: every version, and everything that is none. */
import { describe, expect, test } from "bun:test";
import { NixdeployError } from "../../../src/errors.ts";
import { connectDaemon } from "../../../src/nix/daemon/connect.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";
import {
  type DoublePeer,
  errorReply,
  int,
  LAST,
  log,
  playHandshake,
  playLixHandshake,
  startDaemonDouble,
  str,
  strs,
} from "../../support/daemon-double.ts";

const signal = new AbortController().signal;

const somePath = parseStorePath("/nix/store/00000000000000000000000000000000-some");

const connectTo = (socketPath: string) => connectDaemon({ signal, via: "socket", socketPath, environment: {} });

async function refusalOf(script: (peer: DoublePeer) => Promise<void>, handshakeMaxMs = 5_000): Promise<NixdeployError> {
  await using double = await startDaemonDouble(script);
  const { socketPath } = double;
  const error = await connectDaemon({ signal, via: "socket", socketPath, handshakeMaxMs, environment: {} }).then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof NixdeployError)) throw new Error(`expected a NixdeployError, got ${Bun.inspect(error)}`);
  expect(error.message).toContain(`cannot use the Nix daemon at ${socketPath}: `);
  return error;
}

describe("handshake", () => {
  test.each([
    { minor: 34, trust: 0, protocolVersion: "1.34", trusted: "unknown" },
    { minor: 35, trust: 1, protocolVersion: "1.35", trusted: "trusted" },
    { minor: 35, trust: 2, protocolVersion: "1.35", trusted: "not-trusted" },
    { minor: 37, trust: 0, protocolVersion: "1.37", trusted: "unknown" },
    { minor: 38, trust: 1, protocolVersion: "1.38", trusted: "trusted" },
    { minor: 51, trust: 1, protocolVersion: "1.38", trusted: "trusted" },
  ])("with a daemon of 1.$minor and trust $trust", async ({ minor, trust, protocolVersion, trusted }) => {
    await using double = await startDaemonDouble(async (peer) => {
      await playHandshake(peer, { minor, trust });
      await peer.hungUp();
    });
    await using connection = await connectDaemon({
      signal,
      via: "socket",
      socketPath: double.socketPath,
      environment: {},
    });
    expect(connection.protocolVersion).toBe(protocolVersion);
    expect(connection.nixVersion).toBe(`2.${minor}.0`);
    expect(connection.trust).toBe(trusted as typeof connection.trust);
  });

  test.each([
    { what: "no features", features: [] },
    { what: "features of later versions", features: ["realisation-with-path-not-hash", "not-yet-invented"] },
    { what: "one feature twice, and one without a name", features: ["a", "a", ""] },
    { what: "10,000 features", features: Array.from({ length: 10_000 }, (_, index) => `feature-${index}`) },
  ])("with a daemon of 1.38 that has $what uses none, and works", async ({ features }) => {
    await using double = await startDaemonDouble(async (peer) => {
      // Both sides use what both have named; our list is empty, which `playHandshake` expects.
      await playHandshake(peer, { minor: 38, trust: 1, features });
      await peer.expect(int(31), strs(somePath), int(0));
      await peer.send(LAST, strs(somePath));
      await peer.hungUp();
    });
    await using connection = await connectTo(double.socketPath);
    expect(connection.protocolVersion).toBe("1.38");
    expect((await connection.queryValidPaths([somePath])).size).toBe(1);
  });

  /** By a double made from Lix's source (`playLixHandshake`): a real Lix was never met. */
  test.each([
    { trust: 0, trusted: "unknown" },
    { trust: 1, trusted: "trusted" },
    { trust: 2, trusted: "not-trusted" },
  ] as const)("with what Lix says by its source, $trusted", async ({ trust, trusted }) => {
    await using double = await startDaemonDouble(async (peer) => {
      await playLixHandshake(peer, { trust });
      await peer.expect(int(31), strs(somePath), int(0));
      await peer.send(LAST, strs(somePath));
      await peer.hungUp();
    });
    await using connection = await connectTo(double.socketPath);
    expect(connection.protocolVersion).toBe("1.35");
    expect(connection.nixVersion).toBe("2.95.3");
    expect(connection.trust).toBe(trusted);
    expect((await connection.queryValidPaths([somePath])).size).toBe(1);
  });

  test.each([
    { version: 256 + 33, text: "1.33" },
    { version: 256 + 21, text: "1.21" },
    { version: 99, text: "0.99" },
  ])("refuses a daemon of $text", async ({ version, text }) => {
    const error = await refusalOf(async (peer) => {
      await peer.expect(int(0x6e697863));
      await peer.send(int(0x6478696f), int(version));
      await peer.hungUp();
    });
    expect(error.kind).toBe("host");
    expect(error.message).toEndWith(`it speaks protocol ${text}, older than 1.34 (Nix 2.8)`);
    expect(error.hint).toContain("Upgrade Nix");
  });

  test("refuses a daemon of the next major version", async () => {
    const error = await refusalOf(async (peer) => {
      await peer.send(int(0x6478696f), int(512 + 1));
      await peer.hungUp();
    });
    expect(error.message).toEndWith("it speaks protocol 2.1, which this program is too old for");
  });

  test.each([
    { what: "an HTTP server", bytes: Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n") },
    { what: "small numbers", bytes: Buffer.concat([int(1), int(256 + 34)]) },
  ])("says so when $what answers", async ({ bytes }) => {
    const error = await refusalOf(async (peer) => {
      await peer.send(bytes);
      await peer.hungUp();
    });
    expect(error.message).toEndWith("what answers there is not a Nix daemon");
  });

  test("names allowed-users when the daemon hangs up at once", async () => {
    const error = await refusalOf(async (peer) => {
      peer.socket.destroy();
    });
    expect(error.message).toMatch(/the daemon closed the connection( \(\w+\))?$/);
    expect(error.hint).toContain("allowed-users");
  });

  test("gives up on a daemon that says nothing", async () => {
    const error = await refusalOf((peer) => peer.hungUp(), 50);
    expect(error.message).toEndWith("the daemon gave no answer for 1 s");
    expect(error.hint).toBeUndefined();
  });

  test("passes on what the daemon refuses the session with, without colors", async () => {
    const error = await refusalOf(async (peer) => {
      await peer.expect(int(0x6e697863));
      await peer.send(int(0x6478696f), int(256 + 34));
      await peer.expect(int(256 + 34), int(0), int(0));
      await peer.send(
        str("2.8.0"),
        log("warning"),
        errorReply("\u001b[31;1merror:\u001b[0m cannot open '\u001b[35mdb\u001b[0m'"),
      );
      await peer.hungUp();
    });
    expect(error.message).toEndWith(": cannot open 'db'");
  });

  test("refuses a string longer than any version is, before it is read", async () => {
    const error = await refusalOf(async (peer) => {
      await peer.send(int(0x6478696f), int(256 + 34), int(2n ** 40n));
      await peer.hungUp();
    });
    expect(error.message).toContain("a string of 1099511627776 bytes, more than 65536");
  });

  test("every early end is an error and leaves nothing behind", async () => {
    const words = [int(0x6478696f), int(256 + 38), int(0), str("2.24.0"), int(1), LAST, LAST];
    const whole = Buffer.concat(words);
    for (let length = 0; length < whole.length; length++) {
      const error = await refusalOf(async (peer) => {
        await peer.send(whole.subarray(0, length));
        peer.socket.end();
        await peer.hungUp();
      });
      expect(error.message).toContain("the daemon closed the connection");
    }
  });

  test("throws the signal's reason when aborted during the handshake", async () => {
    const controller = new AbortController();
    await using double = await startDaemonDouble(async (peer) => {
      await peer.expect(int(0x6e697863));
      controller.abort(new Error("enough"));
      await peer.hungUp();
    });
    const connecting = connectDaemon({
      signal: controller.signal,
      via: "socket",
      socketPath: double.socketPath,
      environment: {},
    });
    await expect(connecting).rejects.toThrow("enough");
  });
});
