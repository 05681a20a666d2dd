/**
 * A terminal without a window: takes what a program writes to it and knows what a person would see. Lines wrap at the right
 * edge and are wrapped anew when the terminal is resized, as in most of today's; what scrolled out at the top cannot be
 * reached by the cursor any more. Knows the few controls that the program may use, and complains of every other one.
 */
export type VirtualScreen = {
  write(text: string): void;
  resize(size: { readonly columns: number; readonly rows: number }): void;
  /** What is in the window, without spaces at the ends of rows and empty rows at the bottom. */
  visible(): readonly string[];
  /** With what has scrolled out. */
  everything(): readonly string[];
  /** Colors that were set so far, as the numbers of their controls. */
  readonly colors: ReadonlySet<string>;
};

const ESCAPE = "\u001b";
const CONTROL = new RegExp(`^${ESCAPE}\\[(\\d*(?:;\\d+)*)([A-Za-z])`);

export function createVirtualScreen(size: { readonly columns: number; readonly rows: number }): VirtualScreen {
  let { columns, rows } = size;
  const lines: string[][] = [[]];
  let line = 0;
  let offset = 0;
  let rest = "";
  /** The row at which the window begins; rows above it have scrolled out for good. */
  let top = 0;
  const colors = new Set<string>();

  const rowsOf = (cells: readonly string[]) => Math.max(1, Math.ceil(cells.length / columns));
  const cursorRow = () =>
    lines.slice(0, line).reduce((sum, cells) => sum + rowsOf(cells), 0) + Math.floor(offset / columns);
  const totalRows = () => lines.reduce((sum, cells) => sum + rowsOf(cells), 0);
  const moveTo = (row: number) => {
    let left = row;
    line = 0;
    for (const cells of lines) {
      if (left < rowsOf(cells)) break;
      left -= rowsOf(cells);
      line += 1;
    }
    offset = left * columns + (offset % columns);
  };
  const put = (character: string) => {
    const cells = lines[line] ?? [];
    while (cells.length < offset) cells.push(" ");
    cells[offset] = character;
    offset += 1;
    for (let extra = Bun.stringWidth(character); extra > 1; extra -= 1) {
      cells[offset] = "";
      offset += 1;
    }
  };
  const control = (parameter: string, kind: string) => {
    if (kind === "A") moveTo(Math.max(top, cursorRow() - Number(parameter || 1)));
    else if (kind === "J") {
      lines[line]?.splice(offset);
      lines.splice(line + 1);
    } else if (kind === "K") lines[line]?.splice(offset);
    else if (kind === "m") colors.add(parameter);
    else throw new Error(`the program used a control that this terminal does not know: ${parameter}${kind}`);
  };
  const physical = () =>
    lines.flatMap((cells) =>
      Array.from({ length: rowsOf(cells) }, (_, row) =>
        cells
          .slice(row * columns, (row + 1) * columns)
          .join("")
          .trimEnd(),
      ),
    );
  const trimmed = (shown: readonly string[]) => shown.slice(0, shown.findLastIndex((row) => row !== "") + 1);

  return {
    colors,
    write(text) {
      let left = rest + text;
      rest = "";
      while (left !== "") {
        if (left.startsWith(ESCAPE)) {
          const match = CONTROL.exec(left);
          if (match === null) {
            rest = left;
            return;
          }
          control(match[1] ?? "", match[2] ?? "");
          left = left.slice(match[0].length);
          continue;
        }
        const character = String.fromCodePoint(left.codePointAt(0) ?? 0);
        left = left.slice(character.length);
        if (character === "\r") offset -= offset % columns;
        else if (character === "\n") {
          line += 1;
          offset %= columns;
          if (line === lines.length) lines.push([]);
          top = Math.max(top, totalRows() - rows);
        } else put(character);
      }
    },
    resize(next) {
      ({ columns, rows } = next);
      top = Math.max(0, totalRows() - rows);
    },
    visible: () => trimmed(physical().slice(top, top + rows)),
    everything: () => trimmed(physical()),
  };
}
