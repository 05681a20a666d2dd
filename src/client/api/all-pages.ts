/** Lists of the API come in pages; commands want the whole. */

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
