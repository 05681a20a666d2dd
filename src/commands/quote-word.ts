/** A word of the user's command line in an error message: quoted, short, and never a token. */

const WORD_LENGTH_MAX = 80;
const LOOKS_LIKE_TOKEN = /nd_[a-z]+_/;

export function quoteWord(word: string): string {
  if (LOOKS_LIKE_TOKEN.test(word)) {
    return "(a token: it does not belong on the command line)";
  }
  return JSON.stringify(word.length > WORD_LENGTH_MAX ? `${word.slice(0, WORD_LENGTH_MAX)}…` : word);
}
