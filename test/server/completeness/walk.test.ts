/** Closures across our own and foreign caches: who is asked for what, what comes of trouble, and what is said about it. */
import { describe, expect, test } from "bun:test";
import type { StorePath } from "../../../src/nix/store-path.ts";
import type { AskForeignCache, ForeignAnswer } from "../../../src/server/completeness/foreign-narinfos.ts";
import { describeFaults } from "../../../src/server/completeness/judge.ts";
import { walkClosures } from "../../../src/server/completeness/walk.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const [app, lib, libc, other] = ["app", "lib", "libc", "other"].map((name) => storePathFor(name));
if (app === undefined || lib === undefined || libc === undefined || other === undefined)
  throw new Error("there are four");

const found = (...references: readonly StorePath[]): ForeignAnswer => ({
  ...{ kind: "found", path: { references, narSizeBytes: 100, fileSizeBytes: 0 } },
});
const away: ForeignAnswer = { kind: "away", why: "it answered with status 503" };
const refused: ForeignAnswer = { kind: "refused", why: "it has no signature" };

type World = {
  readonly own?: readonly StorePath[];
  readonly first?: ReadonlyMap<StorePath, ForeignAnswer> | ForeignAnswer;
  readonly second?: ReadonlyMap<StorePath, ForeignAnswer> | ForeignAnswer;
};

async function check(world: World, ...paths: readonly StorePath[]) {
  const asked: string[] = [];
  const ask =
    (name: string, answers: World["first"] = new Map()): AskForeignCache =>
    async (path) => {
      asked.push(`${name} ${path.slice(44)}`);
      return answers instanceof Map ? (answers.get(path) ?? { kind: "absent" }) : (answers as ForeignAnswer);
    };
  const names = ["first", "second"] as const;
  const known = await walkClosures({
    paths,
    findOwn: async (wanted) => new Map(wanted.filter((path) => world.own?.includes(path)).map((path) => [path, "id"])),
    foreign: names.map((name) => ({ name, ask: ask(name, world[name]) })),
    deadline: new AbortController().signal,
  });
  return { asked, known, faults: describeFaults(paths, { known, own: ["default"], foreign: names }) };
}

test("what is whole hides nothing of what is not, wherever it stands", async () => {
  for (const paths of [
    [app, other, lib],
    [other, app, lib],
    [other, lib, app],
  ]) {
    const { faults } = await check({ own: [app] }, ...paths);
    expect(faults.map((fault) => fault.split(" ")[0]).sort()).toEqual([lib, other].map(String).sort());
  }
});

describe("what is there", () => {
  test("in an own cache is asked of nobody, and not followed", async () => {
    const { asked, faults } = await check({ own: [app], first: away }, app);
    expect([asked, faults]).toEqual([[], []]);
  });

  test("in a foreign cache is followed, each path asked in order, until an own cache has it", async () => {
    const first = new Map([[app, found(lib, libc)]]);
    const second = new Map([[lib, found(lib, libc)]]);
    const { asked, known, faults } = await check({ own: [libc], first, second }, app);
    expect([faults, asked]).toEqual([[], ["first app", "first lib", "second lib"]]);
    expect([app, lib, libc].map((path) => known.get(path)?.kind)).toEqual(["foreign", "foreign", "own"]);
  });

  test("what several need is asked for once", async () => {
    const first = new Map([app, other].map((path) => [path, found(libc)]));
    const { asked, faults } = await check({ first: new Map([...first, [libc, found()]]) }, app, other);
    expect([faults, asked.toSorted()]).toEqual([[], ["first app", "first libc", "first other"]]);
  });
});

describe("what is not", () => {
  const nowhere = "in none of the caches default, first, second";
  const cases: readonly (readonly [what: string, world: World, faults: readonly string[]])[] = [
    ["anywhere", {}, [`${app} is ${nowhere}: push it first`]],
    [
      "whole",
      {
        first: new Map([
          [app, found(lib)],
          [lib, found(libc)],
        ]),
      },
      [`${app} is not whole: ${lib} needs ${libc}, which is ${nowhere}`],
    ],
    ["signed", { first: refused }, [`${app}, which the foreign cache first has: it has no signature`]],
    [
      "signed, further down",
      {
        first: new Map([
          [app, found(lib)],
          [lib, refused],
        ]),
      },
      [`${app} is not whole: ${app} needs ${lib}, which the foreign cache first has: it has no signature`],
    ],
    ["known", { first: away }, [`the cache first could not be asked for ${app}: it answered with status 503`]],
    [
      "known, where another cache has something bad",
      { first: refused, second: away },
      [`the cache second could not be asked for ${app}: it answered with status 503`],
    ],
  ];
  test.each(cases)("%s", async (_what, world, faults) => {
    expect((await check(world, app)).faults).toEqual([...faults]);
  });

  test("a cache that is away is asked once, whatever it is needed for, and named once", async () => {
    const { asked, faults } = await check({ first: away }, app);
    expect(asked).toEqual(["first app", "second app"]);
    expect(faults).toHaveLength(1);
    const many = await check({ second: new Map([[other, found(app, lib, libc)]]), first: away }, other);
    expect(many.faults).toEqual([`the cache first could not be asked for ${app}: it answered with status 503`]);
    const several = await check({ first: away }, app, lib, libc);
    expect(several.faults).toEqual([
      `the cache first could not be asked for ${app}, one of 3 paths that were not found before it: it answered with status 503`,
    ]);
  });

  test("bad in one cache is good from the next", async () => {
    expect((await check({ first: refused, second: new Map([[app, found()]]) }, app)).faults).toEqual([]);
    expect((await check({ first: away, second: new Map([[app, found()]]) }, app)).faults).toEqual([]);
  });
});

test("when the time is up nobody is asked any more, and that is why", async () => {
  const deadline = new AbortController();
  const ask: AskForeignCache = async (path, signal) => {
    if (path === app) return found(lib, libc);
    deadline.abort(new Error("20 s were not enough"));
    signal.throwIfAborted();
    return found();
  };
  const foreign = [{ name: "slow", ask }];
  const known = await walkClosures({
    ...{ paths: [app], foreign },
    findOwn: async () => new Map(),
    deadline: deadline.signal,
  });
  expect(describeFaults([app], { known, own: ["default"], foreign: ["slow"] })).toEqual([
    `the cache slow could not be asked for ${lib}: 20 s were not enough`,
  ]);
});

test("a mistake of ours is no trouble of a cache", async () => {
  const ask: AskForeignCache = () => Promise.reject(new TypeError("a bug"));
  const walking = walkClosures({
    ...{ paths: [app], foreign: [{ name: "x", ask }], deadline: new AbortController().signal },
    findOwn: async () => new Map(),
  });
  await expect(walking).rejects.toThrow("a bug");
});

test("a cache whose key signs without end is stopped", async () => {
  let count = 0;
  const ask: AskForeignCache = async () => {
    count += 1;
    return found(...Array.from({ length: 10_000 }, (_, index) => storePathFor("more", `${count} ${index}`)));
  };
  const foreign = [{ name: "endless", ask }];
  const deadline = new AbortController().signal;
  const known = await walkClosures({ ...{ paths: [app], foreign, deadline }, findOwn: async () => new Map() });
  expect(count).toBeLessThan(100);
  expect(describeFaults([app], { known, own: [], foreign: ["endless"] })[0]).toContain("more than 200000 references");
});
