/** What is taken from the C library: opened once, however often it is used, or an agent that waits for years would grow. */
import { expect, test } from "bun:test";
import { fromCLibrary } from "../src/c-library.ts";

test("a library is opened at the first use, and once", () => {
  const find = fromCLibrary("ask for the process", { getpid: { args: [], returns: "i32" } });
  expect(find().getpid()).toBe(process.pid);
  expect(find()).toBe(find());
});

test("a function that is not there is an error when it is used, and says for what", () => {
  const find = fromCLibrary("fly", { fly_away: { args: [], returns: "i32" } });
  expect(() => find()).toThrow("cannot fly on this system");
});
