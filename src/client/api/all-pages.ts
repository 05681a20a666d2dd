/** Lists of the API come in pages; commands want the whole. */
import type { ApiCall, CallApi } from "./api-call.ts";

/** @param load asked with the cursor of each page, undefined for the first */
export async function readAllPages<Page extends { readonly next: string | null }, Item>(
  load: (after: string | undefined) => Promise<Page>,
  itemsOf: (page: Page) => readonly Item[],
): Promise<readonly Item[]> {
  const items: Item[] = [];
  for (let after: string | undefined; ; ) {
    const page = await load(after);
    items.push(...itemsOf(page));
    if (page.next === null) return items;
    after = page.next;
  }
}

/** The whole of a list of the API. @throws NixdeployError as {@link CallApi} does */
export async function readList<Page extends { readonly next: string | null }, Item>(
  call: CallApi,
  { query, ...list }: Pick<ApiCall<Page>, "path" | "query" | "schema" | "signal">,
  itemsOf: (page: Page) => readonly Item[],
): Promise<readonly Item[]> {
  return await readAllPages((after) => call({ method: "GET", ...list, query: { ...query, after } }), itemsOf);
}
