/**
 * Bytes of a program's output → lines, in bounded memory: a line without end is cut into pieces. Pure.
 */

export type LineSplitter = {
  /** The lines that these bytes complete, without their line ends. */
  push(bytes: Uint8Array): string[];
  /** The last line, if it has no line end. */
  end(): string[];
};

/** @param lengthMax characters after which a line is cut; the rest counts as the next line */
export function createLineSplitter(lengthMax: number): LineSplitter {
  const decoder = new TextDecoder();
  /** Since the last line end, or cut: one character more than fits, because it may be the CR of a line end. */
  let rest = "";
  const takeLine = (): string[] => {
    const pieces = cut(rest.replace(/\r$/, ""), lengthMax);
    rest = "";
    return pieces;
  };
  const split = (text: string): string[] => {
    const lines: string[] = [];
    let start = 0;
    // Only what is new is looked through: a line may come in thousands of pieces.
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
      rest += text.slice(start, end);
      for (const piece of takeLine()) lines.push(piece);
      start = end + 1;
    }
    rest += text.slice(start);
    for (; rest.length > lengthMax + 1; rest = rest.slice(lengthMax)) lines.push(rest.slice(0, lengthMax));
    return lines;
  };
  return {
    push: (bytes) => split(decoder.decode(bytes, { stream: true })),
    end() {
      const lines = split(decoder.decode());
      const last = takeLine();
      return last.length === 1 && last[0] === "" ? lines : [...lines, ...last];
    },
  };
}

function cut(line: string, lengthMax: number): string[] {
  const pieces: string[] = [];
  let left = line;
  for (; left.length > lengthMax; left = left.slice(lengthMax)) pieces.push(left.slice(0, lengthMax));
  return [...pieces, left];
}
