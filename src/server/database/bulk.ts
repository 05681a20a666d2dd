/**
 * Sizes of statements about many rows at once: large enough that a row costs little more than itself, few enough that
 * the statements of all sizes have room among those that are kept prepared, and far below SQLite's 32,766 parameters.
 */

/** Rows of one insert. */
export const INSERT_ROWS_MAX = 100;
/** Values in one `in (…)`. */
export const LOOKUPS_MAX = 500;

/** In order; none is empty. */
export function* chunksOf<Item>(items: readonly Item[], lengthMax: number): Generator<readonly Item[]> {
  for (let from = 0; from < items.length; from += lengthMax) yield items.slice(from, from + lengthMax);
}
