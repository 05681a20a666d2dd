/**
 * What the documents for users say, as data: their code blocks, the command lines in those, their links. Markdown is
 * read line by line, which is enough for what we write; nothing is rendered.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export type Document = {
  /** From the repository's root: `docs/rollouts.md`. */
  readonly path: string;
  readonly text: string;
};

export type CodeBlock = {
  /** All that stands behind the opening fence: `nix`, `sh vps`; "" for none. */
  readonly info: string;
  readonly text: string;
  /** Of its first line, from 1. */
  readonly line: number;
};

/** The README and all of docs/, in order. */
export function readDocuments(root: string): readonly Document[] {
  const pages = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .sort()
    .map((name) => `docs/${name}`);
  return ["README.md", "ARCHITECTURE.md", ...pages].map((path) => ({
    path,
    text: readFileSync(join(root, path), "utf8"),
  }));
}

/** @throws Error for a fence that is never closed */
export function listCodeBlocks({ path, text }: Document): readonly CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: { readonly info: string; readonly indent: string; readonly line: number; readonly lines: string[] } | null =
    null;
  for (const [index, line] of text.split("\n").entries()) {
    const fence = /^(?<indent> *)```(?<info>.*)$/.exec(line)?.groups;
    if (open === null) {
      if (fence !== undefined) {
        open = { info: (fence["info"] ?? "").trim(), indent: fence["indent"] ?? "", line: index + 2, lines: [] };
      }
    } else if (fence !== undefined) {
      blocks.push({ info: open.info, line: open.line, text: `${open.lines.join("\n")}\n` });
      open = null;
    } else {
      open.lines.push(line.startsWith(open.indent) ? line.slice(open.indent.length) : line);
    }
  }
  if (open !== null) {
    throw new Error(`${path}:${open.line}: the code block is never closed`);
  }
  return blocks;
}

export type CommandLine = { readonly line: number; readonly words: readonly string[] };

/** Each call of `nixdeploy` in blocks of commands (no language, `sh`, `console`): the words after the program's name. */
export function listCommandLines(document: Document): readonly CommandLine[] {
  return listCodeBlocks(document)
    .filter(({ info }) => info === "" || /^(?:sh|bash|console)\b/.test(info))
    .flatMap(({ text, line }) =>
      text
        .replaceAll(/\\\n/g, "  ")
        .split("\n")
        .flatMap((each, index) => splitCommands(each).map((words) => ({ line: line + index, words }))),
    )
    .flatMap(({ line, words }) => {
      const start = words.findIndex((word) => /^(?:[A-Z_]+=.*|sudo|\$|time|exec)$/.test(word) === false);
      // What is redirected is the shell's business.
      const length = words.findIndex((word) => /^\d?[<>]/.test(word));
      const own = words.slice(start + 1, length < 0 ? undefined : length);
      return words[start] === "nixdeploy" ? [{ line, words: own }] : [];
    });
}

/** The simple commands of a line of shell, each as its words: quotes are taken off, variables stay as they stand. */
function splitCommands(line: string): readonly (readonly string[])[] {
  const tokens = line.matchAll(
    /(?<space>\s+)|(?<break>&&|\|\||[|;&])|(?<comment>(?<=^|\s)#.*$)|(?<word>(?:'[^']*'|"[^"]*"|\$\([^)]*\)|[^\s'"|;&])+)/g,
  );
  const commands: string[][] = [[]];
  for (const { groups } of tokens) {
    if (groups?.["comment"] !== undefined) {
      break;
    }
    if (groups?.["break"] !== undefined) {
      commands.push([]);
    } else if (groups?.["word"] !== undefined) {
      commands.at(-1)?.push(groups["word"].replaceAll(/['"]/g, ""));
    }
  }
  return commands.filter((words) => words.length > 0);
}

export type Link = { readonly target: string; readonly line: number };

/** Links to files of the repository, anchors included; those to the web are left out. */
export function listLocalLinks({ text }: Document): readonly Link[] {
  return text.split("\n").flatMap((line, index) =>
    [...line.matchAll(/\]\((?<target>[^)\s]+)\)/g)].flatMap(({ groups }) => {
      const target = groups?.["target"] ?? "";
      return /^[a-z]+:/.test(target) ? [] : [{ target, line: index + 1 }];
    }),
  );
}

/** The anchors that GitHub makes of a document's headings. */
export function listAnchors({ text }: Document): ReadonlySet<string> {
  const outsideCode = text.replaceAll(/^ *```[^\n]*\n[\s\S]*?^ *```$/gm, "");
  const headings = [...outsideCode.matchAll(/^#{1,6} (?<title>.+)$/gm)].map(({ groups }) => groups?.["title"] ?? "");
  return new Set(
    headings.map((title) =>
      title
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .trim()
        .replaceAll(" ", "-"),
    ),
  );
}
