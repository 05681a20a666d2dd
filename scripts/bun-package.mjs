/**
 * Bun for a platform, from the npm registry (`npm pack`, so that the user's registry, proxy and certificates are
 * honored), checked against the sha512 in bun.lock, kept in `.toolchain/`. Does not run it.
 *
 * Plain Node 18 without dependencies, for bootstrap.mjs; types for others are in modules.d.ts.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const TOOLCHAIN = join(ROOT, ".toolchain");
const UNPACKED_BYTES_MAX = 512 * 1024 * 1024;
const TAR_BLOCK_BYTES = 512;

/** A failure that the person at the keyboard can do something about: printed as one line. */
export class BunPackageError extends Error {}

/**
 * The first of these packages that bun.lock pins. Only what is in the lock can be verified, so nothing else is used.
 * @returns {{ platform: string, specification: string, version: string, integrity: string }}
 */
function pinnedPackage(platforms) {
  const lock = readFileSync(join(ROOT, "bun.lock"), "utf8");
  for (const platform of platforms) {
    const line = lock.split("\n").find((text) => text.trimStart().startsWith(`"@oven/bun-${platform}": [`));
    const match = line?.match(/\["(@oven\/bun-[a-z0-9-]+@([^"]+))".*"(sha512-[A-Za-z0-9+/=]+)"\]/);
    if (match) {
      return { platform, specification: match[1], version: match[2], integrity: match[3] };
    }
  }
  throw new BunPackageError(`cannot get Bun for ${platforms[0]}: bun.lock does not list @oven/bun-${platforms[0]}`);
}

/** npm as the program that runs us, or the one in PATH; its output is shown only when it fails. */
function runNpm(args) {
  const script = process.env.npm_execpath;
  // Under Bun the program that runs us is not the one for npm's script.
  const viaNode =
    process.versions.bun === undefined && script !== undefined && /npm-cli\.c?js$/.test(script) && existsSync(script);
  const [command, prefix] = viaNode ? [process.execPath, [script]] : ["npm", []];
  const result = spawnSync(command, [...prefix, ...args], {
    cwd: ROOT,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (result.error) {
    throw new BunPackageError(
      result.error.code === "ENOENT" ? "cannot run npm: it is not in PATH" : `cannot run npm: ${result.error.message}`,
    );
  }
  return result;
}

/** The reason in npm's own words, on one line. */
function npmReason(stderr) {
  const lines = stderr
    .split("\n")
    .map((line) => line.replace(/^npm (ERR!|error)\s*/, "").trim())
    .filter((line) => line !== "" && !/^(npm warn|A complete log|Log files|\d{4}-)/i.test(line));
  const code = lines.find((line) => line.startsWith("code "))?.slice("code ".length);
  if (["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "ENETUNREACH"].includes(code)) {
    return `the npm registry cannot be reached (${code})`;
  }
  return lines.slice(0, 3).join("; ") || "npm gave no reason";
}

/**
 * Downloads packages into `folder` and returns their tarballs in the order asked for, each verified by its hash.
 * @param {readonly { specification: string, integrity: string }[]} packages
 * @returns {Buffer[]}
 * @throws {BunPackageError}
 */
export function downloadTarballs(packages, folder) {
  const network = ["--prefer-offline", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"];
  const names = packages.map(({ specification }) => specification);
  const result = runNpm(["pack", ...names, "--pack-destination", folder, "--loglevel=error", ...network]);
  if (result.status !== 0) {
    throw new BunPackageError(`cannot download ${names.join(" ")}: ${npmReason(result.stderr)}`);
  }
  const tarballs = new Map();
  for (const name of readdirSync(folder).filter((entry) => entry.endsWith(".tgz"))) {
    const tarball = readFileSync(join(folder, name));
    tarballs.set(`sha512-${createHash("sha512").update(tarball).digest("base64")}`, tarball);
  }
  return packages.map(({ specification, integrity }) => {
    const tarball = tarballs.get(integrity);
    if (tarball !== undefined) return tarball;
    const got = packages.length === 1 ? `its ${[...tarballs.keys()].join(" ")} is` : "what came is";
    throw new BunPackageError(`cannot use ${specification}: ${got} not the ${integrity} that bun.lock pins`);
  });
}

/**
 * One file of a gzipped ustar archive.
 * @throws {BunPackageError} when it is not in there, or the archive is cut
 */
function readFromTarball(tarball, wantedName) {
  const tar = gunzipSync(tarball, { maxOutputLength: UNPACKED_BYTES_MAX });
  let offset = 0;
  while (offset + TAR_BLOCK_BYTES <= tar.length) {
    const name = tar.toString("latin1", offset, offset + 100).replace(/\0.*$/s, "");
    const sizeBytes = Number.parseInt(tar.toString("latin1", offset + 124, offset + 136), 8) || 0;
    const start = offset + TAR_BLOCK_BYTES;
    if (name === wantedName && start + sizeBytes <= tar.length) {
      return tar.subarray(start, start + sizeBytes);
    }
    offset = start + Math.ceil(sizeBytes / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
  }
  throw new BunPackageError(`cannot unpack Bun: ${wantedName} is not in the package`);
}

/**
 * The path of the pinned Bun for the first of `platforms` (as in `@oven/bun-linux-x64`) that bun.lock lists. It is
 * downloaded first when it is not there yet.
 * @param {{ platforms: readonly string[], say: (text: string) => void, check?: (bun: string, version: string) => void }}
 *   options `check` throws for a Bun that is of no use
 * @throws {BunPackageError}
 */
export function ensureBun({ platforms, say, check = () => {} }) {
  const pinned = pinnedPackage(platforms);
  const home = join(TOOLCHAIN, `bun-${pinned.version}-${pinned.platform}`);
  const bun = join(home, "bin", "bun");
  if (existsSync(bun)) {
    return bun;
  }
  say(`getting Bun ${pinned.version} for ${pinned.platform} from the npm registry`);
  mkdirSync(TOOLCHAIN, { recursive: true });
  const temporary = mkdtempSync(join(TOOLCHAIN, "download-"));
  try {
    const binary = readFromTarball(downloadTarballs([pinned], temporary)[0], "package/bin/bun");
    const unpacked = join(temporary, "bun");
    mkdirSync(join(unpacked, "bin"), { recursive: true });
    writeFileSync(join(unpacked, "bin", "bun"), binary, { mode: 0o755 });
    check(join(unpacked, "bin", "bun"), pinned.version);
    moveIntoPlace(unpacked, home);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  say("Bun is verified and in .toolchain");
  return bun;
}

function moveIntoPlace(from, to) {
  try {
    renameSync(from, to);
  } catch (error) {
    // Another bootstrap that ran at the same time was first: its Bun passed the same check.
    if (!["ENOTEMPTY", "EEXIST"].includes(error.code)) {
      throw error;
    }
  }
}
