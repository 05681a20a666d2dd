/** A word of the user's command line in an error message: quoted, short, and never a token. */
import { looksLikeSecret } from "../token.ts";

const WORD_LENGTH_MAX = 80;

export function quoteWord(word: string): string {
  if (looksLikeSecret(word)) {
    return "(a secret: it does not belong on the command line)";
  }
  return JSON.stringify(word.length > WORD_LENGTH_MAX ? `${word.slice(0, WORD_LENGTH_MAX)}…` : word);
}
