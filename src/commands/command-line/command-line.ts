/**
 * A command line as it stands in a shell, taken apart into words as the shell will: blanks between words, '…' as it is,
 * "…" with \ before " \ $ and `, \ before anything elsewhere. Expands nothing. Pure.
 */

export type CommandLine = {
  /** Complete words, the program's first. */
  readonly words: readonly string[];
  /** The word that is being written; "" behind a blank. */
  readonly current: string;
};

const ESCAPED_IN_QUOTES = ['"', "\\", "$", "`", "\n"];

/** @param text up to the cursor */
export function splitCommandLine(text: string): CommandLine {
  const words: string[] = [];
  let current = "";
  let isWord = false;
  let quote: "'" | '"' | null = null;
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index] ?? "";
    const next = text[index + 1];
    if (character === "\\" && quote !== "'" && next !== undefined) {
      const isEscape = quote === null || ESCAPED_IN_QUOTES.includes(next);
      current += isEscape ? next : `\\${next}`;
      isWord = true;
      index += 1;
    } else if (quote === character) {
      quote = null;
    } else if (quote === null && (character === "'" || character === '"')) {
      quote = character;
      isWord = true;
    } else if (quote === null && /\s/.test(character)) {
      if (isWord) words.push(current);
      current = "";
      isWord = false;
    } else {
      current += character;
      isWord = true;
    }
  }
  return { words, current };
}

/** Without what stands before the program: variables, `sudo`; and without the program. Null: it is not on the line. */
export function afterProgram({ words, current }: CommandLine, program: string): CommandLine | null {
  const at = words.findIndex((word) => word === program || word.endsWith(`/${program}`));
  return at === -1 ? null : { words: words.slice(at + 1), current };
}
