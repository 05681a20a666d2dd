/** Descriptions that people give things: refused here where the coordinator would refuse them. */

/** @throws Error that says what is wrong with it */
export function parseDescription(text: string, { lengthMax }: { readonly lengthMax: number }): string {
  if (text.length <= lengthMax) return text;
  throw new Error(`it has ${text.length} characters, more than ${lengthMax}`);
}

/** The same for what stands in one line of a list. */
export function parseLine(text: string, limits: { readonly lengthMax: number }): string {
  if (!/\p{Cc}/u.test(text)) return parseDescription(text, limits);
  throw new Error("it has a line break or another control character");
}
