/**
 * Writes nix/dependencies.json, the hashes of what nix/dependencies.nix downloads, after bun.lock has changed:
 *
 *   bun scripts/nix-dependencies.ts
 *
 * Made by the very program that the derivation runs, for every system, on any machine with npm and Nix.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
export const NIX_SYSTEMS = ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"] as const;

/** As `outputHash` has it: "sha256-…". */
export function hashDependencies(system: (typeof NIX_SYSTEMS)[number]): string {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-dependencies-"));
  try {
    const out = join(folder, "out");
    execFileSync("node", [join(ROOT, "nix/dependencies.mjs"), system, out], { stdio: ["ignore", "ignore", "inherit"] });
    const env = { ...process.env, NIX_REMOTE: "dummy://" };
    const hex = execFileSync("nix-hash", ["--type", "sha256", out], { env, encoding: "utf8" }).trim();
    return `sha256-${Buffer.from(hex, "hex").toString("base64")}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const hashes = Object.fromEntries(NIX_SYSTEMS.map((system) => [system, hashDependencies(system)]));
  writeFileSync(join(ROOT, "nix/dependencies.json"), `${JSON.stringify(hashes, null, 2)}\n`);
}
