/** A word of the user's command line in an error message: quoted, short, and never a token. */
import { quoteExcerpt } from "../../nix/parse-error.ts";
import { looksLikeSecret } from "../../token.ts";

export function quoteWord(word: string): string {
  if (looksLikeSecret(word)) {
    return "(a secret: it does not belong on the command line)";
  }
  return quoteExcerpt(word);
}
