/** docs/cli.md and the routes of docs/rest.md are what the code declares. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { writeReferences } from "../scripts/references.ts";

const ROOT = join(import.meta.dir, "..");
const read = (path: string) => Bun.file(join(ROOT, path)).text();

test("the references in docs/ are as the code would write them", async () => {
  for (const [path, text] of await writeReferences({ rest: await read("docs/rest.md") })) {
    const isCurrent = (await read(path)) === text;
    expect(isCurrent ? path : `${path} is behind the code: run \`bun scripts/references.ts\``).toBe(path);
  }
});
