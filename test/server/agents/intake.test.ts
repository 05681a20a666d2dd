/** Large frames take turns, small ones do not wait. */
import { expect, test } from "bun:test";
import { createIntake, SMALL_CHARACTERS } from "../../../src/server/agents/intake.ts";

const LARGE = SMALL_CHARACTERS + 1;

function createBench(charactersMax: number) {
  const intake = createIntake(charactersMax);
  const log: string[] = [];
  const ends = new Map<string, () => void>();
  const begin = (name: string, characters = LARGE) =>
    intake.run(characters, async () => {
      log.push(name);
      await new Promise<void>((end) => ends.set(name, end));
    });
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  const end = async (name: string) => {
    ends.get(name)?.();
    await settle();
  };
  return { intake, log, begin, end, settle };
}

test("as many as there is room for, then in the order in which they came", async () => {
  const { log, begin, end, settle } = createBench(2 * LARGE);
  const all = ["a", "b", "c", "d"].map((name) => begin(name));
  await settle();
  expect(log).toEqual(["a", "b"]);
  await end("b");
  expect(log).toEqual(["a", "b", "c"]);
  for (const name of ["a", "c", "d"]) await end(name);
  await Promise.all(all);
  expect(log).toEqual(["a", "b", "c", "d"]);
});

test("a small one never waits, and one larger than all the room is read alone", async () => {
  const { log, begin, end, settle } = createBench(2 * LARGE);
  const all = [begin("huge", 10 * LARGE), begin("large"), begin("small", SMALL_CHARACTERS)];
  await settle();
  expect(log).toEqual(["small", "huge"]);
  await end("huge");
  expect(log).toEqual(["small", "huge", "large"]);
  for (const name of ["small", "large"]) await end(name);
  await Promise.all(all);
});

test("one that fails makes room, and says so to who asked", async () => {
  const { intake, log, begin, end } = createBench(LARGE);
  const failing = intake.run(LARGE, () => Promise.reject(new Error("no good")));
  const next = begin("next");
  await expect(failing).rejects.toThrow("no good");
  await end("next");
  await next;
  expect(log).toEqual(["next"]);
});
