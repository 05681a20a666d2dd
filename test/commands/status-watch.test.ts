/** What fits on a terminal. */
import { expect, test } from "bun:test";
import { fitLines } from "../../src/commands/status-watch.ts";

test.each<[number, number, readonly string[]]>([
  [80, 6, ["one", "two", "three", "four"]],
  [80, 5, ["one", "two", "… 2 more lines: a larger terminal shows them"]],
  [5, 9, ["one", "two", "thr…", "four"]],
  [80, 1, ["… 4 more lines: a larger terminal shows them"]],
])("%d columns, %d rows", (columns, rows, expected) => {
  expect(fitLines(["one", "two", "three", "four"], { columns, rows })).toEqual([...expected]);
});
