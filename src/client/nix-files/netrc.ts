/**
 * Our line in a netrc file, from which Nix (by curl) takes passwords: one for a host, whatever its port and path. The line
 * is known by its login; everything else of the file stays as it is. Text in, text out; no files.
 *
 *     machine deploy.example.org login nixdeploy password nd_read_…
 *
 * The first entry of a host counts, and nothing behind `default` does. Source: curl `lib/netrc.c`, netrc(5).
 */
const LOGIN = "nixdeploy";

export type NetrcEntry = {
  /** The password when the entry has one. */
  readonly password: string | null;
  /** Made by us, on a line of its own. */
  readonly isOurs: boolean;
};

/** As curl compares it: without the port, and an IPv6 address without its brackets. */
export function netrcHost(url: string): string {
  return new URL(url).hostname.replace(/^\[(.*)\]$/, "$1");
}

/** What counts for a host now; null when nothing does. */
export function findNetrcEntry(text: string, host: string): NetrcEntry | null {
  const words = text.split("\n").flatMap((line) => splitLine(line));
  for (const [index, word] of words.entries()) {
    const next = words[index + 1];
    if (word.text === "default") return null;
    if (word.text !== "machine" || next?.text.toLowerCase() !== host.toLowerCase()) continue;
    const rest = words.slice(index + 2);
    const end = rest.findIndex(({ text: each }) => ["machine", "default", "macdef"].includes(each));
    const entry = end < 0 ? rest : rest.slice(0, end);
    const wordAfter = (name: string) => entry[entry.findIndex((each) => each.text === name) + 1]?.text ?? null;
    const password = entry.some((each) => each.text === "password") ? wordAfter("password") : null;
    return { password, isOurs: isOurLine(word.line, host) };
  }
  return null;
}

/** With our entry for a host, in the place of the one before it. */
export function withNetrcEntry(text: string, entry: { readonly host: string; readonly password: string }): string {
  const line = `machine ${entry.host} login ${LOGIN} password ${entry.password}`;
  const lines = text.split("\n");
  const known = lines.findIndex((each) => isOurLine(each, entry.host));
  // One that stands behind what ends the search is put where it counts.
  if (known >= 0 && findNetrcEntry(text, entry.host) === null)
    return withNetrcEntry(withoutNetrcEntry(text, entry.host), entry);
  if (known >= 0) return lines.with(known, line).join("\n");
  // Behind these, an entry does not count, or is part of something else.
  const isFirst = /(?:^|\s)(?:default|macdef)\s/m.test(`${text}\n`);
  if (isFirst) return `${line}\n${text}`;
  return `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}${line}\n`;
}

/** Without our entry for a host. */
export function withoutNetrcEntry(text: string, host: string): string {
  const lines = text.split("\n");
  const known = lines.findIndex((each) => isOurLine(each, host));
  return known < 0 ? text : lines.toSpliced(known, 1).join("\n");
}

function isOurLine(line: string, host: string): boolean {
  const words = splitLine(line).map(({ text }) => text);
  const [machine, name, login, who, password, , ...others] = words;
  const isEntry = machine === "machine" && login === "login" && who === LOGIN && password === "password";
  return isEntry && name?.toLowerCase() === host.toLowerCase() && others.length === 0;
}

function splitLine(line: string): readonly { readonly text: string; readonly line: string }[] {
  if (line.trimStart().startsWith("#")) return [];
  return line.split(/\s+/).flatMap((text) => (text === "" ? [] : [{ text, line }]));
}
