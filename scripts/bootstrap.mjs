/**
 * From "git and npm" to a running Bun: what `npm test` and `npm run demo` start.
 *
 *   node scripts/bootstrap.mjs test|demo [ARGUMENT…]
 *
 * 1. Bun, in the version that bun.lock pins, from the npm registry (`npm pack`, so that the user's registry, proxy and
 *    certificates are honored), checked against the sha512 in bun.lock, kept in `.toolchain/`.
 * 2. The dependencies, exactly as locked.
 * 3. `bun scripts/test.ts` or `bun scripts/demo.ts`, with its exit code or signal as ours.
 *
 * Plain Node 18 without dependencies, because nothing of ours is installed yet. The second run needs no network.
 */
import { spawn, spawnSync } from "node:child_process";
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
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const TOOLCHAIN = join(ROOT, ".toolchain");
const NODE_MAJOR_MIN = 18;
const UNPACKED_BYTES_MAX = 512 * 1024 * 1024;
const TAR_BLOCK_BYTES = 512;

/** A failure that the person at the keyboard can do something about: printed as one line. */
class BootstrapError extends Error {}

function say(text) {
  process.stdout.write(`bootstrap: ${text}\n`);
}

/**
 * The platform packages of Bun that fit this machine, best first.
 * @throws {BootstrapError} when Bun does not exist for it
 */
function wantedPlatforms() {
  const architecture = { x64: "x64", arm64: "aarch64" }[process.arch];
  if (architecture === undefined || !["linux", "darwin"].includes(process.platform)) {
    throw new BootstrapError(
      `cannot get Bun for ${process.platform}-${process.arch}: only Linux and macOS on x64 and arm64 are supported`,
    );
  }
  const libc = process.platform === "linux" && isMusl() ? "-musl" : "";
  const name = `${process.platform}-${architecture}${libc}`;
  return architecture === "x64" && !hasAvx2() ? [`${name}-baseline`, name] : [name];
}

function isMusl() {
  const report = process.report.getReport();
  return (typeof report === "string" ? JSON.parse(report) : report).header.glibcVersionRuntime === undefined;
}

function hasAvx2() {
  try {
    return /\bavx2\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    // No /proc: macOS, where every supported x64 machine has AVX2.
    return true;
  }
}

/**
 * The package that bun.lock pins for this machine. Only what is in the lock can be verified, so nothing else is used.
 * @returns {{ platform: string, specification: string, version: string, integrity: string }}
 */
function pinnedPackage() {
  const lock = readFileSync(join(ROOT, "bun.lock"), "utf8");
  const platforms = wantedPlatforms();
  for (const platform of platforms) {
    const line = lock.split("\n").find((text) => text.trimStart().startsWith(`"@oven/bun-${platform}": [`));
    const match = line?.match(/\["(@oven\/bun-[a-z0-9-]+@([^"]+))".*"(sha512-[A-Za-z0-9+/=]+)"\]/);
    if (match) {
      return { platform, specification: match[1], version: match[2], integrity: match[3] };
    }
  }
  throw new BootstrapError(`cannot get Bun for ${platforms[0]}: bun.lock does not list @oven/bun-${platforms[0]}`);
}

/** npm as the program that runs us, or the one in PATH; its output is shown only when it fails. */
function runNpm(args) {
  const script = process.env.npm_execpath;
  const viaNode = script !== undefined && /npm-cli\.c?js$/.test(script) && existsSync(script);
  const [command, prefix] = viaNode ? [process.execPath, [script]] : ["npm", []];
  const result = spawnSync(command, [...prefix, ...args], {
    cwd: ROOT,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (result.error) {
    throw new BootstrapError(
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

/** Downloads the package into `folder` and returns the bytes of its tarball, verified. */
function downloadTarball({ specification, integrity }, folder) {
  const network = ["--prefer-offline", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"];
  const result = runNpm(["pack", specification, "--pack-destination", folder, "--loglevel=error", ...network]);
  const name = readdirSync(folder).find((entry) => entry.endsWith(".tgz"));
  if (result.status !== 0 || name === undefined) {
    throw new BootstrapError(`cannot download ${specification}: ${npmReason(result.stderr)}`);
  }
  const tarball = readFileSync(join(folder, name));
  const digest = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
  if (digest !== integrity) {
    throw new BootstrapError(`cannot use ${specification}: its ${digest} is not the ${integrity} that bun.lock pins`);
  }
  return tarball;
}

/**
 * One file of a gzipped ustar archive.
 * @throws {BootstrapError} when it is not in there, or the archive is cut
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
  throw new BootstrapError(`cannot unpack Bun: ${wantedName} is not in the package`);
}

/** Proves that the file is a Bun of that version which runs on this machine. */
function checkBun(bun, version) {
  const result = spawnSync(bun, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  if (result.stdout?.trim() === version) {
    return;
  }
  const why =
    result.error?.message ?? result.signal ?? (result.stderr.trim().split("\n")[0] || `exit ${result.status}`);
  throw new BootstrapError(`cannot run Bun ${version} on this machine: ${why}`);
}

/** The path of the pinned Bun, which is downloaded first when it is not there yet. */
function ensureBun() {
  const pinned = pinnedPackage();
  const home = join(TOOLCHAIN, `bun-${pinned.version}-${pinned.platform}`);
  const bun = join(home, "bin", "bun");
  if (existsSync(bun)) {
    return bun;
  }
  say(`getting Bun ${pinned.version} for ${pinned.platform} from the npm registry`);
  mkdirSync(TOOLCHAIN, { recursive: true });
  const temporary = mkdtempSync(join(TOOLCHAIN, "download-"));
  try {
    const binary = readFromTarball(downloadTarball(pinned, temporary), "package/bin/bun");
    const unpacked = join(temporary, "bun");
    mkdirSync(join(unpacked, "bin"), { recursive: true });
    writeFileSync(join(unpacked, "bin", "bun"), binary, { mode: 0o755 });
    checkBun(join(unpacked, "bin", "bun"), pinned.version);
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

/** npm's network settings in the variables that Bun reads; what the user has set for Bun itself wins. */
function environmentForBun(bun) {
  const env = { ...process.env };
  const pass = (target, source) => {
    if (env[target] === undefined && process.env[source]) {
      env[target] = process.env[source];
    }
  };
  pass("HTTP_PROXY", "npm_config_proxy");
  pass("HTTPS_PROXY", "npm_config_https_proxy");
  pass("NO_PROXY", "npm_config_noproxy");
  pass("NODE_EXTRA_CA_CERTS", "npm_config_cafile");
  env.PATH = `${dirname(bun)}:${join(ROOT, "node_modules", ".bin")}:${process.env.PATH ?? ""}`;
  return env;
}

/** Installs what bun.lock says; without network when node_modules matches already. */
function installDependencies(bun, env) {
  const isFirst = !existsSync(join(ROOT, "node_modules"));
  if (isFirst) {
    say("installing the dependencies as locked in bun.lock");
  }
  const result = spawnSync(bun, ["install", "--frozen-lockfile"], {
    cwd: ROOT,
    env,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (result.status !== 0) {
    const text = `${result.stderr ?? ""}${result.error?.message ?? ""}`;
    const why = text.split("\n").filter((line) => /error/i.test(line));
    const reason = why.slice(0, 3).join("; ") || text.trim() || `exit ${result.status ?? result.signal}`;
    throw new BootstrapError(`cannot install the dependencies: ${reason}`);
  }
}

/** Runs the script with our standard streams; ends the way it ends. */
function runScript({ bun, env, script, args }) {
  const child = spawn(bun, [join(ROOT, "scripts", `${script}.ts`), ...args], { cwd: ROOT, env, stdio: "inherit" });
  // A terminal sends Ctrl-C to the child as well: forwarding it would deliver it twice.
  process.on("SIGINT", () => process.stdin.isTTY || child.kill("SIGINT"));
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGHUP", () => child.kill("SIGHUP"));
  child.on("error", (error) => fail(new BootstrapError(`cannot start Bun: ${error.message}`)));
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}

function fail(error) {
  process.stderr.write(error instanceof BootstrapError ? `bootstrap: ${error.message}\n` : `${error.stack}\n`);
  process.exit(1);
}

function main([script, ...args]) {
  if (script !== "test" && script !== "demo") {
    throw new BootstrapError("usage: node scripts/bootstrap.mjs test|demo [ARGUMENT…]");
  }
  if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
    throw new BootstrapError(`cannot run on Node ${process.versions.node}: ${NODE_MAJOR_MIN} or newer is needed`);
  }
  const bun = ensureBun();
  const env = environmentForBun(bun);
  installDependencies(bun, env);
  runScript({ bun, env, script, args });
}

try {
  main(process.argv.slice(2));
} catch (error) {
  fail(error);
}
