/** The operations, word by word, against a scripted daemon: requests, replies, refusals, and daemons that misbehave. */
import { describe, expect, test } from "bun:test";
import { NixdeployError } from "../../../src/errors.ts";
import { DaemonError } from "../../../src/nix/daemon/daemon-error.ts";
import { parseStorePath } from "../../../src/nix/store-path.ts";
import {
  type DaemonScene,
  errorReply,
  int,
  LAST,
  log,
  playDaemonScene,
  str,
  strs,
} from "../../support/daemon-double.ts";
import { thrownBy } from "../../support/failure.ts";

const lib = parseStorePath("/nix/store/00000000000000000000000000000000-lib");
const app = parseStorePath("/nix/store/11111111111111111111111111111111-app");
const hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const SIGNATURE = "test-1:c2lnbmF0dXJl";

async function withDaemon(
  daemon: DaemonScene["daemon"],
  client: DaemonScene["client"],
  signal = new AbortController().signal,
): Promise<void> {
  await playDaemonScene({ daemon, client, signal });
}

describe("queryValidPaths", () => {
  test("asks for all at once, without substitution", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(31), strs(lib, app), int(0));
        await peer.send(log("looking"), LAST, strs(app));
      },
      async (connection) => expect([...(await connection.queryValidPaths([lib, app]))]).toEqual([app]),
    );
  });

  test("asks in portions", async () => {
    const many = Array.from({ length: 4_500 }, (_, index) => parseStorePath(`${lib}-${index}`));
    const portions: number[] = [];
    await withDaemon(
      async (peer) => {
        for (let asked = 0; asked < many.length; ) {
          await peer.expect(int(31));
          const paths = await peer.takeStrs();
          await peer.expect(int(0));
          await peer.send(LAST, strs(...paths));
          portions.push(paths.length);
          asked += paths.length;
        }
      },
      async (connection) => expect((await connection.queryValidPaths(many)).size).toBe(many.length),
    );
    expect(portions).toEqual([2_000, 2_000, 500]);
  });

  test("asks nothing about nothing", async () => {
    await withDaemon(
      (peer) => peer.hungUp(),
      async (connection) => {
        expect((await connection.queryValidPaths([])).size).toBe(0);
        await connection.addTempRoots([]);
        await connection[Symbol.asyncDispose]();
      },
    );
  });

  test("refuses paths that nobody asked for", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(31), strs(lib, app), int(0));
        await peer.send(LAST, strs("/nix/store/22222222222222222222222222222222-else"));
        await peer.hungUp();
      },
      async (connection) => {
        await expect(connection.queryValidPaths([lib, app])).rejects.toThrow("valid paths that nobody asked for");
        await expect(connection.queryValidPaths([lib])).rejects.toThrow("was lost before");
      },
    );
  });
});

describe("queryPathInfo", () => {
  test("reads every field", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(app));
        await peer.send(
          LAST,
          int(1),
          str(`${app}.drv`),
          str(hex),
          strs(app, lib),
          int(1_700_000_000),
          int(8_000_000_000),
        );
        await peer.send(int(1), strs(SIGNATURE, "b:Yg=="), str("fixed:r:sha256:x"));
      },
      async (connection) =>
        expect(await connection.queryPathInfo(app)).toEqual({
          storePath: app,
          narHash: "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
          narSizeBytes: 8_000_000_000,
          references: [lib, app],
          deriver: parseStorePath(`${app}.drv`),
          signatures: [SIGNATURE, "b:Yg=="],
          contentAddress: "fixed:r:sha256:x",
        } as never),
    );
  });

  test("reads a path without deriver, references, signatures and content address", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(LAST, int(1), str(""), str(hex), strs(), int(0), int(120), int(0), strs(), str(""));
      },
      async (connection) => {
        const info = await connection.queryPathInfo(lib);
        expect(info).toMatchObject({ deriver: null, references: [], signatures: [], contentAddress: null });
      },
    );
  });

  test("gives null for a path that is not valid, however the daemon says it", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(LAST, int(0));
        await peer.expect(int(26), str(lib));
        await peer.send(errorReply(`\u001b[31;1merror:\u001b[0m path '\u001b[35;1m${lib}\u001b[0m' is not valid`));
      },
      async (connection) => {
        expect(await connection.queryPathInfo(lib)).toBeNull();
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test("of several paths is asked at once, and answered in their order, some of them not valid", async () => {
    const refused = errorReply("the disk is on fire");
    await withDaemon(
      async (peer) => {
        for (const path of [lib, app, lib]) await peer.expect(int(26), str(path));
        await peer.send(LAST, int(0), errorReply(`path '${app}' is not valid`), LAST, int(0));
        for (const path of [lib, app]) await peer.expect(int(26), str(path));
        await peer.send(refused, LAST, int(0));
        await peer.expect(int(26), str(lib));
        await peer.send(LAST, int(0));
      },
      async (connection) => {
        expect(await connection.queryPathInfos([lib, app, lib])).toEqual([null, null, null]);
        expect(await thrownBy(connection.queryPathInfos([lib, app]))).toMatchObject({
          message: "cannot ask the Nix daemon about 2 paths: the disk is on fire",
        });
        // It is still in step.
        expect(await connection.queryPathInfo(lib)).toBeNull();
      },
    );
  });

  test.each([
    { what: "a hash that is none", fields: [str(""), str("xyz"), strs(), int(0), int(1), int(0), strs(), str("")] },
    {
      what: "a reference outside the store",
      fields: [str(""), str(hex), strs("/etc/passwd"), int(0), int(1), int(0), strs(), str("")],
    },
    { what: "padding that is not zero", fields: [Buffer.concat([int(1), Buffer.from("abcdefgh")])] },
    { what: "more references than there can be", fields: [str(""), str(hex), int(2n ** 33n)] },
    { what: "a number above 2^53", fields: [str(""), str(hex), strs(), int(0), int(2n ** 60n)] },
  ])("refuses $what", async ({ fields }) => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(LAST, int(1), ...fields);
        await peer.hungUp();
      },
      async (connection) => {
        const error = await thrownBy(connection.queryPathInfo(lib));
        expect(error).toBeInstanceOf(NixdeployError);
        expect(String(error)).toContain("is not the Nix worker protocol: ");
      },
    );
  });
});

describe("roots", () => {
  test("addTempRoots sends hundreds of requests before it waits for an answer", async () => {
    const many = Array.from({ length: 1_200 }, (_, index) => parseStorePath(`${lib}-${index}`));
    await withDaemon(
      async (peer) => {
        for (let start = 0; start < many.length; start += 500) {
          const batch = many.slice(start, start + 500);
          await peer.expect(...batch.flatMap((path) => [int(11), str(path)]));
          await peer.send(...batch.flatMap(() => [LAST, int(1)]));
        }
      },
      async (connection) => await connection.addTempRoots(many),
    );
  });

  test("addTempRoots survives a daemon that writes much more than it reads", async () => {
    const many = Array.from({ length: 500 }, (_, index) => parseStorePath(`${lib}-${"x".repeat(150)}${index}`));
    const line = log("x".repeat(64 * 1024));
    await withDaemon(
      async (peer) => {
        for (const path of many) {
          await peer.send(line, LAST, int(1));
          await peer.expect(int(11), str(path));
        }
      },
      async (connection) => await connection.addTempRoots(many),
    );
  });

  test("a refused root names its path, and the connection goes on in step", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(11), str(lib), int(11), str(app));
        await peer.send(errorReply("disk full"), LAST, int(1));
        await peer.expect(int(12), str("/tmp/result"));
        await peer.send(LAST, int(1));
      },
      async (connection) => {
        const error = await thrownBy(connection.addTempRoots([lib, app]));
        expect(error).toBeInstanceOf(DaemonError);
        expect(error).toMatchObject({
          message: `cannot protect ${lib} from garbage collection: disk full`,
          daemonMessage: "disk full",
        });
        await connection.addIndirectRoot("/tmp/result");
      },
    );
  });
});

describe("the messages before a reply", () => {
  test("are passed over, all kinds", async () => {
    const activity = [
      int(0x53545254),
      int(7),
      int(3),
      int(105),
      str("building"),
      int(2),
      int(0),
      int(9),
      int(1),
      str("f"),
      int(0),
    ];
    const result = [int(0x52534c54), int(7), int(105), int(1), int(0), int(5)];
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(
          ...activity,
          ...result,
          int(0x53544f50),
          int(7),
          log(""),
          log("x".repeat(300_000)),
          LAST,
          int(0),
        );
      },
      async (connection) => expect(await connection.queryPathInfo(lib)).toBeNull(),
    );
  });

  test("an error keeps its traces, and a long one is not cut", async () => {
    const text = "because ".repeat(10_000).trim();
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(errorReply(text, ["\u001b[1mwhile reading\u001b[0m", "while starting"]));
      },
      async (connection) => {
        const error = await thrownBy(connection.queryPathInfo(lib));
        expect(error).toMatchObject({
          daemonMessage: text,
          details: ["while reading", "while starting"],
          kind: "host",
        });
      },
    );
  });

  test.each([
    { what: "an unknown message", bytes: int(0x1234) },
    { what: "a field of unknown type", bytes: Buffer.concat([int(0x52534c54), int(1), int(1), int(1), int(7)]) },
    { what: "a request to read", bytes: Buffer.concat([int(0x64617461), int(32_768)]) },
  ])("$what ends the connection", async ({ bytes }) => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(bytes);
        await peer.hungUp();
      },
      async (connection) => {
        await expect(connection.queryPathInfo(lib)).rejects.toThrow("is not the Nix worker protocol");
        await expect(connection.addTempRoots([lib])).rejects.toThrow("was lost before");
      },
    );
  });
});

describe("the connection", () => {
  test("does one operation at a time, in the order asked", async () => {
    await withDaemon(
      async (peer) => {
        for (const path of [lib, app, lib]) {
          await peer.expect(int(26), str(path));
          await peer.send(LAST, int(0));
        }
      },
      async (connection) => {
        const asked = [lib, app, lib].map((path) => connection.queryPathInfo(path));
        expect(await Promise.all(asked)).toEqual([null, null, null]);
      },
    );
  });

  test("says what was being done when the daemon dies, and refuses what comes later", async () => {
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        await peer.send(LAST, int(1), str(""));
      },
      async (connection) => {
        const [first, second] = await Promise.all([
          thrownBy(connection.queryPathInfo(lib)),
          thrownBy(connection.queryPathInfo(app)),
        ]);
        expect(String(first)).toMatch(/cannot ask the Nix daemon about \S+-lib: the daemon closed the connection/);
        expect(String(second)).toContain("was lost before");
      },
    );
  });

  test("throws the signal's reason in everything that waits", async () => {
    const controller = new AbortController();
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        controller.abort(new Error("enough"));
        await peer.hungUp();
      },
      async (connection) => {
        const failures = await Promise.all([lib, app].map((path) => thrownBy(connection.queryPathInfo(path))));
        expect(failures.map(String)).toEqual(["Error: enough", "Error: enough"]);
        await expect(connection.addTempRoots([lib])).rejects.toThrow("enough");
      },
      controller.signal,
    );
  });

  test("is closed by its disposal, also for operations in progress", async () => {
    const asked = Promise.withResolvers<void>();
    await withDaemon(
      async (peer) => {
        await peer.expect(int(26), str(lib));
        asked.resolve();
        await peer.hungUp();
      },
      async (connection) => {
        const asking = thrownBy(connection.queryPathInfo(lib));
        await asked.promise;
        await connection[Symbol.asyncDispose]();
        expect(String(await asking)).toContain("the connection to the Nix daemon is closed");
      },
    );
  });
});
