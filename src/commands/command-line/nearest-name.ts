/** "Did you mean …?": the known name that a mistyped one is closest to. */

/** As many edits as a slip of the hand makes; more is another word. */
const DISTANCE_MAX = 2;

/** null when nothing is near enough. */
export function findNearestName(text: string, names: readonly string[]): string | null {
  let nearest: { readonly name: string; readonly distance: number } | null = null;
  for (const name of names) {
    const limit = Math.min(DISTANCE_MAX, Math.floor(name.length / 2));
    const isPrefix = name.startsWith(text) && text.length > 1;
    if (!isPrefix && Math.abs(text.length - name.length) > limit) {
      // Each character too many is one edit: such a word is not compared, however long it is.
      continue;
    }
    const distance = isPrefix ? 1 : editDistance(text, name);
    if (distance <= limit && (nearest === null || distance < nearest.distance)) {
      nearest = { name, distance };
    }
  }
  return nearest?.name ?? null;
}

/** Insertions, deletions, replacements, and swaps of neighbors (optimal string alignment). */
function editDistance(left: string, right: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const replaced = (previous[column - 1] ?? 0) + (left[row - 1] === right[column - 1] ? 0 : 1);
      const inserted = (current[column - 1] ?? 0) + 1;
      const deleted = (previous[column] ?? 0) + 1;
      const isSwap = left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1];
      const swapped = isSwap && row > 1 && column > 1 ? (beforePrevious[column - 2] ?? 0) + 1 : replaced;
      current.push(Math.min(replaced, inserted, deleted, swapped));
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[right.length] ?? left.length;
}
