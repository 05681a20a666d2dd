/** Lists are read whole, however many pages they have. */
import { expect, test } from "bun:test";
import { readAllPages } from "../../../src/client/api/all-pages.ts";

test("each page is asked for behind the one before, until there is none", async () => {
  const pages = new Map([
    ["first", { next: "a", items: [1, 2] }],
    ["a", { next: "b", items: [] }],
    ["b", { next: null, items: [3] }],
  ]);
  const asked: (string | undefined)[] = [];
  const load = async (after: string | undefined) => {
    asked.push(after);
    return pages.get(after ?? "first") ?? { next: null, items: [] };
  };
  expect(await readAllPages(load, ({ items }) => items)).toEqual([1, 2, 3]);
  expect(asked).toEqual([undefined, "a", "b"]);
});
