/** Code blocks of the documents, for tests that run them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { listCodeBlocks } from "./documents.ts";

const DOCUMENTS = join(import.meta.dir, "../../docs");

/** The first block of a language under a heading of the second level. @throws Error when there is none */
export async function readGuideBlock(options: {
  /** "provisioning.md" */
  readonly document: string;
  readonly heading: string;
  readonly language: string;
}): Promise<string> {
  const { document, heading, language } = options;
  const text = await readFile(join(DOCUMENTS, document), "utf8");
  const [, section] = text.split(`\n## ${heading}\n`);
  const blocks = listCodeBlocks({ path: document, text: section?.split("\n## ")[0] ?? "" });
  const block = blocks.find(({ info }) => info === language);
  if (block === undefined) throw new Error(`docs/${document} has no ${language} block under ${heading}`);
  return block.text;
}
