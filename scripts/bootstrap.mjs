/**
 * From "git and npm" to a running Bun: what `npm test`, `npm run demo`, `npm run release` and `npm run bench` start.
 *
 *   node scripts/bootstrap.mjs test|demo|release|bench [ARGUMENT…]
 *
 * 1. Bun, in the version that bun.lock pins (bun-package.mjs).
 * 2. The dependencies, exactly as locked.
 * 3. `bun scripts/NAME.ts`, with its exit code or signal as ours.
 *
 * Plain Node 18 without dependencies, because nothing of ours is installed yet. The second run needs no network.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { BunPackageError, ensureBun, ROOT } from "./bun-package.mjs";

const NODE_MAJOR_MIN = 18;
const SCRIPTS = ["test", "demo", "release", "bench"];

function say(text) {
  process.stdout.write(`bootstrap: ${text}\n`);
}

/**
 * The platform packages of Bun that fit this machine, best first.
 * @throws {BunPackageError} when Bun does not exist for it
 */
function wantedPlatforms() {
  const architecture = { x64: "x64", arm64: "aarch64" }[process.arch];
  if (architecture === undefined || !["linux", "darwin"].includes(process.platform)) {
    throw new BunPackageError(
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
 * Proves that the file is a Bun of that version which runs on this machine.
 * @throws {BunPackageError}
 */
function checkBun(bun, version) {
  const result = spawnSync(bun, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  if (result.stdout?.trim() === version) {
    return;
  }
  const why =
    result.error?.message ?? result.signal ?? (result.stderr.trim().split("\n")[0] || `exit ${result.status}`);
  throw new BunPackageError(`cannot run Bun ${version} on this machine: ${why}`);
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
    throw new BunPackageError(`cannot install the dependencies: ${reason}`);
  }
}

/** Runs the script with our standard streams; ends the way it ends. */
function runScript({ bun, env, script, args }) {
  const child = spawn(bun, [join(ROOT, "scripts", `${script}.ts`), ...args], { cwd: ROOT, env, stdio: "inherit" });
  // A terminal sends Ctrl-C to the child as well: forwarding it would deliver it twice.
  process.on("SIGINT", () => process.stdin.isTTY || child.kill("SIGINT"));
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGHUP", () => child.kill("SIGHUP"));
  child.on("error", (error) => fail(new BunPackageError(`cannot start Bun: ${error.message}`)));
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}

function fail(error) {
  process.stderr.write(error instanceof BunPackageError ? `bootstrap: ${error.message}\n` : `${error.stack}\n`);
  process.exit(1);
}

function main([script, ...args]) {
  if (!SCRIPTS.includes(script)) {
    throw new BunPackageError(`usage: node scripts/bootstrap.mjs ${SCRIPTS.join("|")} [ARGUMENT…]`);
  }
  if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
    throw new BunPackageError(`cannot run on Node ${process.versions.node}: ${NODE_MAJOR_MIN} or newer is needed`);
  }
  const bun = ensureBun({ platforms: wantedPlatforms(), say, check: checkBun });
  const env = environmentForBun(bun);
  installDependencies(bun, env);
  runScript({ bun, env, script, args });
}

try {
  main(process.argv.slice(2));
} catch (error) {
  fail(error);
}
