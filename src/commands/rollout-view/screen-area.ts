/**
 * Some lines at the bottom of a terminal that are painted again and again. Uses nothing but "up", "to the first column" and
 * "erase below", which every terminal has. Knows how many rows the terminal made of what was painted last, also after it was
 * made narrower.
 */
import type { OutputStream, TerminalSize } from "../command-line/context.ts";

const ESCAPE = "\u001b[";
const ERASE_BELOW = `\r${ESCAPE}J`;

export type ScreenArea = {
  /** Instead of what was painted before. Lines must not be wider than the terminal. */
  paint(lines: readonly string[]): Promise<void>;
  /** What stays, above the area, which is painted again below it. */
  print(lines: readonly string[]): Promise<void>;
};

export function createScreenArea(stream: OutputStream, size: () => TerminalSize): ScreenArea {
  let painted: readonly string[] = [];
  /** To where the area began. */
  const erase = () => {
    const columns = Math.max(1, size().columns);
    const rows = painted.reduce((sum, line) => sum + Math.max(1, Math.ceil(Bun.stringWidth(line) / columns)), 0);
    return rows === 0 ? "" : `${ESCAPE}${rows}A${ERASE_BELOW}`;
  };
  const draw = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");
  return {
    async paint(lines) {
      const text = erase() + draw(lines);
      painted = lines;
      if (text !== "") await stream.write(text);
    },
    async print(lines) {
      await stream.write(erase() + draw(lines) + draw(painted));
    },
  };
}
