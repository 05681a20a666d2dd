/** The repository's address and the release, which package.json says, are the same wherever a page or the template names them. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { listPlaces, readRepository, withRepository } from "../scripts/repository.ts";

const ROOT = join(import.meta.dir, "..");
const read = (path: string) => Bun.file(join(ROOT, path)).text();

test("every place names what package.json says", async () => {
  const repository = await readRepository();
  for (const path of listPlaces()) {
    const text = await read(path);
    const isCurrent = withRepository(text, repository) === text;
    expect(isCurrent ? path : `${path} names another one: run \`bun scripts/repository.ts\``).toBe(path);
  }
});

test("another owner and another release reach every place, and nothing else", async () => {
  const { name, version } = await readRepository();
  const other = { name: "acme/nixdeploy", version: "7.8.9" };
  const changed: string[] = [];
  for (const path of listPlaces()) {
    const text = await read(path);
    const written = withRepository(text, other);
    expect(written).not.toContain(name);
    expect(withRepository(written, { name, version })).toBe(text);
    if (written !== text) changed.push(path);
  }
  expect(changed).toContain("nix/templates/homelab/flake.nix");
  expect(changed).toContain("nix/templates/homelab/.github/workflows/deploy.yml");
  expect(withRepository("- uses: a/nixdeploy@v1.0.0\n", other)).toBe("- uses: acme/nixdeploy@v7.8.9\n");
  expect(withRepository("github:a/nixdeploy-tools, dist/nixdeploy", other)).toBe(
    "github:a/nixdeploy-tools, dist/nixdeploy",
  );
});
