/**
 * Lists in pages: `?limit=N&after=CURSOR`, and in the answer `next`, the cursor of the following page or null at the end.
 * A cursor is the sort key of the last row, so that what comes and goes in between moves nothing.
 */
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { countParam } from "./route.ts";

/** The query of a list. */
export function pageParams(limits: { readonly fallback: number; readonly max: number }) {
  return { limit: countParam(limits), after: z.string().max(400).optional() };
}

/** Of lists that are short for most. */
export const LIST_PAGES = pageParams({ fallback: 1_000, max: 1_000 });

/** Rows in order → a page of them. @param rows one more than the limit, if there are so many */
export function toPage<Row>(
  rows: readonly Row[],
  options: { readonly limit: number; cursorOf(row: Row): readonly (string | number)[] },
): { readonly page: readonly Row[]; readonly next: string | null } {
  const page = rows.slice(0, options.limit);
  const last = page.at(-1);
  return { page, next: rows.length > page.length && last !== undefined ? formatCursor(options.cursorOf(last)) : null };
}

/** A page of rows that are all there. @param options.cursorOf the sort key, texts as the database sorts them */
export function pageOf<Row>(
  rows: readonly Row[],
  options: { readonly limit: number; readonly after?: string | undefined; cursorOf(row: Row): readonly string[] },
): { readonly page: readonly Row[]; readonly next: string | null } {
  const { limit, cursorOf } = options;
  const [first] = rows;
  const keys = z.array(z.string());
  const after = parseCursor(options.after, first === undefined ? keys : keys.length(cursorOf(first).length));
  const sorted = rows.toSorted((a, b) => compareKeys(cursorOf(a), cursorOf(b)));
  const behind = after === null ? sorted : sorted.filter((row) => compareKeys(cursorOf(row), after) > 0);
  return toPage(behind, { limit, cursorOf });
}

/** For {@link pageOf}: numbers in their order as texts. */
export function sortKeyOf(count: number): string {
  return String(count).padStart(16, "0");
}

/** Opaque to clients; may stand in a URL as it is. */
export function formatCursor(keys: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(keys)).toString("base64url");
}

/** @returns null without a cursor @throws NixdeployError `usage` for one that we did not make */
export function parseCursor<Keys extends z.ZodType>(text: string | undefined, schema: Keys): z.output<Keys> | null {
  if (text === undefined) return null;
  try {
    return schema.parse(JSON.parse(Buffer.from(text, "base64url").toString("utf8")));
  } catch (cause) {
    throw new NixdeployError("usage", "cannot read after: it is no `next` of an earlier page", { cause });
  }
}

/** The order of rows sorted by these keys, texts as the database sorts them. @returns below, at or above 0 */
export function compareKeys(a: readonly string[], b: readonly string[]): number {
  for (const [index, key] of a.entries()) {
    const order = Buffer.compare(Buffer.from(key), Buffer.from(b[index] ?? ""));
    if (order !== 0) return order;
  }
  return 0;
}
