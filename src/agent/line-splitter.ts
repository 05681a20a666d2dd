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
  let rest = "";
  const split = (text: string): string[] => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    const whole = lines.flatMap((line) => cut(line.replace(/\r$/, ""), lengthMax));
    while (rest.length > lengthMax) {
      whole.push(rest.slice(0, lengthMax));
      rest = rest.slice(lengthMax);
    }
    return whole;
  };
  return {
    push: (bytes) => split(decoder.decode(bytes, { stream: true })),
    end() {
      const lines = split(decoder.decode());
      const last = rest.replace(/\r$/, "");
      rest = "";
      return last === "" ? lines : [...lines, last];
    },
  };
}

function cut(line: string, lengthMax: number): string[] {
  const pieces: string[] = [];
  let left = line;
  for (; left.length > lengthMax; left = left.slice(lengthMax)) pieces.push(left.slice(0, lengthMax));
  return [...pieces, left];
}
