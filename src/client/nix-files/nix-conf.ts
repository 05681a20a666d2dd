/**
 * Our lines in a nix.conf: one block for each cache, between two comments by which it is found again. Everything else of
 * the file stays as it is, byte for byte. Text in, text out; no files.
 *
 *     # nixdeploy cache default at https://deploy.example.org/cache/default: begin
 *     extra-substituters = https://deploy.example.org/cache/default
 *     extra-trusted-public-keys = default-x7k2p1-1:…
 *     netrc-file = /home/ann/.config/nix/netrc
 *     # nixdeploy cache default at https://deploy.example.org/cache/default: end
 *
 * `extra-` adds to what stands before it, and Nix goes through a file from top to bottom: a line behind the block that
 * says `substituters = …` takes away what the block has added, and one that includes another file may. So the block is
 * moved to the end then.
 * Source: Nix `src/libutil/config.cc` (applyConfig).
 */
import { NixdeployError } from "../../errors.ts";

export type CacheInNixConf = {
  readonly name: string;
  readonly url: string;
};

export type CacheBlock = CacheInNixConf & {
  readonly publicKeys: readonly string[];
  /** Null: what counts without us is right. */
  readonly netrcFile: string | null;
};

const BEGIN = /^# nixdeploy cache (\S+) at (\S+): begin$/;
/** What sets anew what a block adds to or sets. */
const OVERRULING =
  /^\s*(?:(?:substituters|trusted-substituters|binary-caches|trusted-public-keys|binary-cache-public-keys|netrc-file)\s*=|!?include\s)/;
/** Addresses, keys and paths. Not: what begins a comment, ends a line, or means something in a Nix string. */
const PLAIN_WORD = /^[\w.~:/?[\]@!&'()*+,;=%-]+$/;

type Block = CacheInNixConf & { readonly first: number; readonly last: number };

/** The blocks that are there, in their order. @throws NixdeployError "host" for one that has no end */
export function findCacheBlocks(text: string): readonly CacheInNixConf[] {
  return findBlocks(text.split("\n")).map(({ name, url }) => ({ name, url }));
}

/** The path in the last `netrc-file` line outside of our blocks; null without one. */
export function findNetrcFile(text: string): string | null {
  const values = othersBehind(text.split("\n"), 0).flatMap(
    (line) => /^\s*netrc-file\s*=\s*([^#]*?)\s*(?:#.*)?$/.exec(line)?.slice(1) ?? [],
  );
  return values.at(-1) || null;
}

/** The files that it includes, as they stand there: relative to the folder of this one. Those that may be missing, too. */
export function findIncludes(text: string): readonly string[] {
  return text.split("\n").flatMap((line) => /^\s*!?include\s+([^\s#]+)\s*(?:#.*)?$/.exec(line)?.slice(1) ?? []);
}

/**
 * With this block, in the place of the one before it; at the end when there was none, or something behind it would take
 * its effect away. The same block again changes nothing.
 * @throws NixdeployError "remote" for an address or a key that would say more than itself in a line
 */
export function withCacheBlock(text: string, block: CacheBlock): string {
  const written = [block.name, block.url, ...block.publicKeys, ...(block.netrcFile === null ? [] : [block.netrcFile])];
  requirePlain(written);
  const lines = text.split("\n");
  const known = findBlocks(lines).find((each) => isSame(each, block));
  if (known === undefined) return append(text, formatBlock(block));
  const isOverruled = othersBehind(lines, known.last + 1).some((line) => OVERRULING.test(line));
  if (isOverruled) return append(withoutLines(lines, known), formatBlock(block));
  return lines.toSpliced(known.first, known.last - known.first + 1, ...formatBlock(block)).join("\n");
}

function requirePlain(words: readonly string[]): void {
  const bad = words.find((word) => !PLAIN_WORD.test(word));
  if (bad === undefined) return;
  throw new NixdeployError(
    "remote",
    `cannot write ${JSON.stringify(bad)} into Nix's configuration: it is not one plain word`,
  );
}

/** Without it, and without the empty line that came with it. */
export function withoutCacheBlock(text: string, cache: CacheInNixConf): string {
  const lines = text.split("\n");
  const known = findBlocks(lines).find((each) => isSame(each, cache));
  return known === undefined ? text : withoutLines(lines, known);
}

/** The lines from a position on that are in none of our blocks. */
function othersBehind(lines: readonly string[], from: number): readonly string[] {
  const blocks = findBlocks(lines);
  return lines.filter((_, at) => at >= from && !blocks.some(({ first, last }) => at >= first && at <= last));
}

function isSame(a: CacheInNixConf, b: CacheInNixConf): boolean {
  return a.name === b.name && a.url === b.url;
}

function findBlocks(lines: readonly string[]): readonly Block[] {
  const blocks: Block[] = [];
  for (const [first, line] of lines.entries()) {
    const [, name, url] = BEGIN.exec(line) ?? [];
    if (name === undefined || url === undefined) continue;
    const last = lines.indexOf(endOf({ name, url }), first);
    if (last < 0) {
      throw new NixdeployError("host", `cannot change nix.conf: the lines of the cache ${name} have no end`, {
        hint: `Remove the line "${line}" and what came with it.`,
      });
    }
    blocks.push({ name, url, first, last });
  }
  return blocks;
}

function endOf({ name, url }: CacheInNixConf): string {
  return `# nixdeploy cache ${name} at ${url}: end`;
}

function formatBlock(block: CacheBlock): readonly string[] {
  return [
    `# nixdeploy cache ${block.name} at ${block.url}: begin`,
    ...formatSettings(block),
    ...(block.netrcFile === null ? [] : [`netrc-file = ${block.netrcFile}`]),
    endOf(block),
  ];
}

function formatSettings({ url, publicKeys }: CacheBlock): readonly string[] {
  return [`extra-substituters = ${url}`, `extra-trusted-public-keys = ${publicKeys.join(" ")}`];
}

function append(text: string, block: readonly string[]): string {
  const before = text === "" || text.endsWith("\n") ? text : `${text}\n`;
  return `${before}${before === "" ? "" : "\n"}${block.join("\n")}\n`;
}

function withoutLines(lines: readonly string[], { first, last }: Block): string {
  const start = first > 0 && lines[first - 1] === "" ? first - 1 : first;
  return lines.toSpliced(start, last - start + 1).join("\n");
}

/** The same for a configuration of NixOS, nix-darwin or Home Manager. @throws as {@link withCacheBlock} does */
export function formatNixModule({ url, publicKeys }: Pick<CacheBlock, "url" | "publicKeys">): string {
  requirePlain([url, ...publicKeys]);
  return [
    "nix.settings = {",
    `  extra-substituters = [ ${JSON.stringify(url)} ];`,
    `  extra-trusted-public-keys = [ ${publicKeys.map((key) => JSON.stringify(key)).join(" ")} ];`,
    "};",
  ].join("\n");
}
