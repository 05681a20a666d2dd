/**
 * What the build needs besides the source, from bun.lock: Bun for one platform, and the libraries that go into the
 * program, each verified by the hash that is pinned there.
 *
 *   node nix/dependencies.mjs SYSTEM OUT       OUT/bin/bun, OUT/node_modules/…
 *
 * Only tarballs are unpacked and no package's code is run, so the same lock file gives the same bytes on every machine,
 * also for another SYSTEM (x86_64-linux, …) than its own. npm downloads them, with the registry it is configured with.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BunPackageError, downloadTarballs, ROOT } from "../scripts/bun-package.mjs";

const BUN_PLATFORMS = {
  "x86_64-linux": "linux-x64",
  "aarch64-linux": "linux-aarch64",
  "x86_64-darwin": "darwin-x64",
  "aarch64-darwin": "darwin-aarch64",
};

/** bun.lock is JSON with commas at the end of lists. */
function readLock() {
  const text = readFileSync(join(ROOT, "bun.lock"), "utf8");
  return JSON.parse(text.replace(/,(\s*[}\]])/g, "$1"));
}

/**
 * Everything that the program's own dependencies need, by its name below node_modules. bun.lock may also hold a second
 * version of a package, for one that needs it ("a/b"): there is none, and it would be an error.
 */
function collectLibraries({ packages, workspaces }) {
  const found = new Map();
  const visit = (parent, dependencies) => {
    for (const name of Object.keys(dependencies ?? {})) {
      if (packages[name] === undefined || packages[`${parent}/${name}`] !== undefined) {
        throw new BunPackageError(`cannot read bun.lock: it has no or several ${name} for ${parent}`);
      }
      if (found.has(name)) continue;
      const [specification, , facts, integrity] = packages[name];
      found.set(name, { specification, integrity });
      visit(name, facts.dependencies);
    }
  };
  visit("nixdeploy", workspaces[""].dependencies);
  return found;
}

function unpack(tarball, folder) {
  mkdirSync(folder, { recursive: true });
  const result = spawnSync("tar", ["-xz", "--strip-components=1", "--no-same-owner", "-C", folder], { input: tarball });
  if (result.status !== 0) throw new BunPackageError(`cannot unpack into ${folder}: ${result.stderr ?? result.error}`);
}

function main([system, out]) {
  const platform = BUN_PLATFORMS[system];
  if (platform === undefined || out === undefined) {
    throw new BunPackageError(`usage: node nix/dependencies.mjs ${Object.keys(BUN_PLATFORMS).join("|")} OUT`);
  }
  const lock = readLock();
  const bun = lock.packages[`@oven/bun-${platform}`];
  const wanted = [
    ["", { specification: bun[0], integrity: bun[3] }],
    ...[...collectLibraries(lock)].sort(([left], [right]) => (left < right ? -1 : 1)),
  ];
  mkdirSync(out, { recursive: true });
  const work = mkdtempSync(join(out, ".download-"));
  try {
    const tarballs = downloadTarballs(
      wanted.map(([, one]) => one),
      work,
    );
    for (const [index, [name]] of wanted.entries()) {
      const folder = name === "" ? join(work, "bun") : join(out, "node_modules", name);
      unpack(tarballs[index], folder);
    }
    mkdirSync(join(out, "bin"), { recursive: true });
    renameSync(join(work, "bun/bin/bun"), join(out, "bin/bun"));
    writeFileSync(join(out, "bin/VERSION"), `${bun[0].slice(bun[0].lastIndexOf("@") + 1)}\n`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

try {
  main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(error instanceof BunPackageError ? `dependencies: ${error.message}\n` : `${error.stack}\n`);
  process.exitCode = 1;
}
