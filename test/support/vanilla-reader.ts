/** A device that has nothing of ours reads a path from the private cache, by Nix alone and through whatever is in front of it. */
import { expect } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Fleet } from "./fleet.ts";
import { cacheResultSchema } from "./results.ts";

export async function expectVanillaNixReads(
  fleet: Fleet,
  way: {
    /** What the coordinator calls itself by. */
    readonly publicUrl: string;
    /** PEM, of whoever signed the proxy's certificate. */
    readonly authorityFile: string;
    /** For our own commands. */
    readonly env: Readonly<Record<string, string>>;
  },
): Promise<void> {
  const { publicUrl, authorityFile, env } = way;
  const path = await fleet.builder.build("app", { name: "tool", version: "1" });
  await fleet.expectRun(["push", path], { env });
  const shown = JSON.parse(await fleet.expectRun(["cache", "show", "default", "--json"], { env }));
  const { url, publicKeys } = cacheResultSchema.parse(shown);
  expect(url).toBe(`${publicUrl}/cache/default`);
  const netrc = join(fleet.directory, "netrc");
  await writeFile(netrc, `machine localhost login any password ${await fleet.makeToken("read")}\n`);
  const reader = await fleet.addDevice("reader");
  const options = { "trusted-public-keys": publicKeys.join(" "), "netrc-file": netrc };
  const flags = Object.entries(options).flatMap(([name, value]) => ["--option", name, value]);
  await reader.run(["nix", "copy", "--from", url, path, ...flags], {
    env: { NIX_SSL_CERT_FILE: authorityFile, NIX_REMOTE: "local" },
  });
  expect(await reader.run([`${path}/bin/tool`])).toBe("tool 1");
}
