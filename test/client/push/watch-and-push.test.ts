/** What is built while something runs is pushed meanwhile, and all of it in the end; what fails is tried again, and said. */
import { describe, expect, test } from "bun:test";
import { type WatchAndPushOptions, watchAndPush } from "../../../src/client/push/watch-and-push.ts";
import { NixdeployError } from "../../../src/errors.ts";
import { parseStorePath, type StorePath } from "../../../src/nix/store-path.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const path = (n: number) => parseStorePath(`/nix/store/${String(n).padStart(32, "0")}-path`);
const away = new NixdeployError("unreachable", "cannot reach it: nobody is there");
const broken = new NixdeployError("host", "cannot push it: it is damaged");

/** @param faults by the number of the try: what it throws */
function createScene(faults: Readonly<Record<number, unknown>> = {}, damaged: readonly StorePath[] = []) {
  const clock = createManualClock();
  const stop = new AbortController();
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const queued: StorePath[] = [];
  const missed: StorePath[] = [];
  const tries: (readonly StorePath[])[] = [];
  const pushed = new Set<StorePath>();
  const troubles: unknown[] = [];
  const options: WatchAndPushOptions = {
    watch: { take: async () => queued.splice(0), takeRest: async () => [...queued.splice(0), ...missed.splice(0)] },
    push: async (roots) => {
      tries.push(roots);
      const fault = faults[tries.length];
      if (fault !== undefined) throw fault;
      if (roots.some((root) => damaged.includes(root))) throw broken;
      for (const root of roots) pushed.add(root);
    },
    ended,
    clock,
    signal: stop.signal,
    onTrouble: (error) => troubles.push(error),
  };
  return { clock, stop, end, queued, missed, tries, pushed, troubles, running: watchAndPush(options) };
}

describe("while it runs", () => {
  test("what is built goes up before the end, each once", async () => {
    const scene = createScene();
    scene.queued.push(path(1));
    await scene.clock.advance(500);
    scene.queued.push(path(2), path(3));
    await scene.clock.advance(500);
    expect(scene.tries).toEqual([[path(1)], [path(2), path(3)]]);
    await scene.clock.advance(5_000);
    scene.end();
    expect(await scene.running).toEqual({ built: [path(1), path(2), path(3)], failed: [] });
    expect(scene.tries).toHaveLength(2);
  });

  test("a try that fails is told, and made again after a while with what came since", async () => {
    const scene = createScene({ 1: away });
    scene.queued.push(path(1));
    await scene.clock.advance(500);
    expect(scene.troubles).toEqual([away]);
    scene.queued.push(path(2));
    await scene.clock.advance(14_000);
    expect(scene.tries).toHaveLength(1);
    await scene.clock.advance(2_000);
    expect(scene.tries[1]).toEqual([path(1), path(2)]);
    scene.end();
    expect((await scene.running).failed).toEqual([]);
  });
});

describe("in the end", () => {
  test("what was built in the last moment, and what no watch has seen", async () => {
    const scene = createScene();
    scene.queued.push(path(1));
    scene.missed.push(path(2));
    scene.end();
    expect(await scene.running).toEqual({ built: [path(1), path(2)], failed: [] });
    expect([...scene.pushed]).toEqual([path(1), path(2)]);
  });

  test("one that cannot be pushed takes no other with it", async () => {
    const scene = createScene({}, [path(2)]);
    scene.queued.push(path(1), path(2), path(3));
    scene.end();
    expect((await scene.running).failed).toEqual([{ path: path(2), error: broken }]);
    expect([...scene.pushed]).toEqual([path(1), path(3)]);
  });

  test("without a coordinator nobody waits for each path", async () => {
    const scene = createScene({ 1: away, 2: away });
    scene.queued.push(path(1), path(2), path(3));
    scene.end();
    expect((await scene.running).failed.map((each) => each.path)).toEqual([path(1), path(2), path(3)]);
    expect(scene.tries).toHaveLength(2);
  });

  test("nothing was built: nothing is pushed", async () => {
    const scene = createScene();
    scene.end();
    expect(await scene.running).toEqual({ built: [], failed: [] });
    expect(scene.tries).toEqual([]);
  });
});
