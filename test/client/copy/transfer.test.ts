/** From one store into another: what goes, in which order, and what a lost connection costs. */
import { describe, expect, test } from "bun:test";
import { type TransferEvent, type TransferOptions, transferClosure } from "../../../src/client/copy/transfer.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { ConnectionLostError } from "../../../src/nix/daemon/daemon-error.ts";
import type { StorePath } from "../../../src/nix/store-path.ts";
import { thrownBy } from "../../support/failure.ts";
import { createInstantClock } from "../../support/instant-clock.ts";
import { createMemoryDaemon, type MemoryDaemon } from "../../support/memory-daemon.ts";
import { createSeededRandom } from "../../support/seeded-random.ts";
import { createTinyPath, type TinyPath } from "../../support/tiny-path.ts";

const LIBRARY = createTinyPath("library");
const PROGRAM = createTinyPath("program", { references: [LIBRARY.storePath] });
const SYSTEM = createTinyPath("system", { references: [LIBRARY.storePath, PROGRAM.storePath] });
const ALL = [LIBRARY, PROGRAM, SYSTEM];

const infoOf = ({ nar, ...path }: TinyPath) => ({
  ...path,
  ...{ narSizeBytes: nar.length, deriver: null, signatures: [], contentAddress: null },
});

/** A store that has all of it, contents and all. */
function createSource(): MemoryDaemon {
  const daemon = createMemoryDaemon();
  for (const path of ALL) daemon.valid.set(path.storePath, infoOf(path));
  const { connect } = daemon;
  return Object.assign(daemon, {
    connect: async (options: Parameters<typeof connect>[0]) =>
      Object.assign(await connect(options), {
        async *narFromPath(storePath: StorePath) {
          yield ALL.find((path) => path.storePath === storePath)?.nar ?? new Uint8Array();
        },
      }),
  });
}

function createTransfer(changes: Partial<TransferOptions> = {}) {
  const [source, target] = [createSource(), createMemoryDaemon()];
  const events: TransferEvent[] = [];
  const added: StorePath[] = [];
  target.afterAdd = ({ storePath }) => void added.push(storePath);
  const options: TransferOptions = {
    ...{ roots: [SYSTEM.storePath], freeBytes: null, jobs: 1, clock: createInstantClock() },
    ...{ random: createSeededRandom(1), signal: new AbortController().signal },
    from: { name: "the local Nix store", open: (signal) => source.connect({ signal }) },
    to: { name: "the Nix store of nuc", open: (signal) => target.connect({ signal }) },
    prepare: async () => "ready",
    vet: (info) => info,
    explain: (error) => error,
    onEvent: (event) => void events.push(event),
    ...changes,
  };
  const lost = () => events.filter(({ kind }) => kind === "lost").length;
  return { source, target, events, added, lost, run: () => transferClosure(options) };
}

describe("a closure", () => {
  test.each([1, 4])(
    "arrives whole, references first, and keeps its roots until it is let go: %i at once",
    async (jobs) => {
      const { source, target, added, events, run } = createTransfer({ jobs });
      {
        await using transferred = await run();
        expect(transferred).toMatchObject({ pathsTotal: 3, copiedPaths: 3 });
        expect(transferred.copiedBytes).toBe(ALL.reduce((sum, { nar }) => sum + nar.length, 0));
        expect(target.connections.open).toBe(1);
        expect([...target.tempRoots].sort()).toEqual(ALL.map(({ storePath }) => storePath).sort());
      }
      expect([source.connections.open, target.connections.open]).toEqual([0, 0]);
      expect(added).toEqual([LIBRARY.storePath, PROGRAM.storePath, SYSTEM.storePath]);
      const bytes = events.flatMap((event) => (event.kind === "bytes" ? [event.count] : []));
      expect(bytes.reduce((sum, count) => sum + count, 0)).toBe(ALL.reduce((sum, { nar }) => sum + nar.length, 0));
      expect(events[0]).toMatchObject({ kind: "planned", pathsTotal: 3, missing: { length: 3 } });
    },
  );

  test("goes as far as it is missing", async () => {
    const { target, added, run } = createTransfer();
    target.valid.set(LIBRARY.storePath, infoOf(LIBRARY));
    await using transferred = await run();
    expect(transferred).toMatchObject({ pathsTotal: 3, copiedPaths: 2 });
    expect(added).toEqual([PROGRAM.storePath, SYSTEM.storePath]);
  });

  test("takes one worker when no more can be had", async () => {
    const { source, run } = createTransfer({ jobs: 3 });
    const { connect } = source;
    let opened = 0;
    source.connect = async (options) => {
      opened += 1;
      if (opened > 1) throw new NixdeployError("host", "cannot open another session");
      return await connect(options);
    };
    await using transferred = await run();
    expect(transferred.copiedPaths).toBe(3);
  });

  test("is not begun where there is no room for it", async () => {
    const sizeBytes = ALL.reduce((sum, { nar }) => sum + nar.length, 0);
    const full = createTransfer({ freeBytes: sizeBytes });
    expect(await thrownBy(full.run())).toMatchObject({
      kind: "host",
      message: expect.stringContaining("the disk is full"),
    });
    expect(full.added).toEqual([]);
    const enough = createTransfer({ freeBytes: Math.ceil(sizeBytes * 1.1) });
    await (await enough.run())[Symbol.asyncDispose]();
    expect(enough.added).toHaveLength(3);
  });

  test("that is gone again over there is said", async () => {
    const { target, run } = createTransfer();
    target.afterAdd = ({ storePath }) => {
      if (storePath === SYSTEM.storePath) target.valid.delete(LIBRARY.storePath);
    };
    expect(await thrownBy(run())).toMatchObject({ message: expect.stringContaining("1 paths are gone again") });
  });

  test("that is refused is explained", async () => {
    const { target, run } = createTransfer({ explain: (_, info) => new Error(`no: ${info.storePath}`) });
    target.beforeAdd = () => Promise.reject(new NixdeployError("host", "lacks a signature"));
    expect(await thrownBy(run())).toMatchObject({ message: `no: ${LIBRARY.storePath}` });
    expect(target.connections.open).toBe(0);
  });
});

describe("a connection that is lost", () => {
  const lose = () => Promise.reject(new ConnectionLostError("the connection ended"));

  test("is made again, as often as a path has come in between", async () => {
    const { target, added, lost, run } = createTransfer();
    let calls = 0;
    target.beforeAdd = async () => {
      calls += 1;
      // Each path only at the third try.
      if (calls % 3 !== 0) await lose();
    };
    await using transferred = await run();
    expect(transferred).toMatchObject({ pathsTotal: 3, copiedPaths: 3 });
    expect(added).toEqual([LIBRARY.storePath, PROGRAM.storePath, SYSTEM.storePath]);
    expect(lost()).toBe(6);
  });

  test("is given up when nothing comes of it", async () => {
    const { target, lost, run } = createTransfer();
    target.beforeAdd = lose;
    expect(await thrownBy(run())).toBeInstanceOf(ConnectionLostError);
    expect(lost()).toBe(3);
    expect(target.connections.open).toBe(0);
  });

  test("is not made again when it could not be made at all, nor after a refusal", async () => {
    const nobody = new NixdeployError("unreachable", "cannot reach nuc: no route");
    const away = createTransfer({ to: { name: "nuc", open: () => Promise.reject(nobody) } });
    expect(await thrownBy(away.run())).toBe(nobody);
    expect(away.lost()).toBe(0);
    const refusal = new NixdeployError("refused", "cannot copy: no");
    const refused = createTransfer({ prepare: () => Promise.reject(refusal) });
    expect(await thrownBy(refused.run())).toBe(refusal);
    expect(refused.lost()).toBe(0);
  });

  test("ends with a Ctrl-C meanwhile", async () => {
    const stop = new AbortController();
    const { target, run } = createTransfer({ signal: stop.signal });
    target.beforeAdd = async () => {
      stop.abort(new Error("Ctrl-C"));
      await lose();
    };
    expect(await thrownBy(run())).toMatchObject({ message: "Ctrl-C" });
  });
});
