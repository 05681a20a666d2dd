/**
 * Builds `dist/nixdeploy`: one file that runs wherever it is moved.
 *
 *   bun build.ts [--outfile FILE] [--target bun-linux-arm64]
 *
 * ESM bytecode with lazy chunks starts in a few milliseconds. The compiled program reads neither `.env` nor
 * `bunfig.toml` from where it is started: it runs as root on devices, and a `preload` there would be code execution.
 * Bun can report success for a binary that dies at its start, so the result is always run, moved away and beside such
 * files, before it replaces the previous one.
 */
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { NIXDEPLOY_VERSION } from "./src/version.ts";

const ROOT = import.meta.dir;
const SMOKE_TIMEOUT_MS = 20_000;

type BuildOptions = { readonly outfile: string; readonly target: Bun.Build.CompileTarget | null };

/** Compiles into `folder` and returns the path of the binary. */
async function compile(folder: string, target: BuildOptions["target"]): Promise<string> {
  const outfile = join(folder, "nixdeploy");
  const result = await Bun.build({
    entrypoints: [join(ROOT, "src/start.ts")],
    compile: { outfile, autoloadDotenv: false, autoloadBunfig: false, ...(target === null ? {} : { target }) },
    minify: true,
    bytecode: true,
    format: "esm",
    splitting: true,
    // Goes into the binary too: a stack in a bug report names our files and lines.
    sourcemap: "linked",
  });
  for (const log of result.logs) {
    console.error(String(log));
  }
  if (!result.success) {
    throw new Error("cannot build nixdeploy: the bundler failed");
  }
  return outfile;
}

/** Runs the binary as a user would who moved it somewhere else, in a directory full of traps. */
function smokeRun(binary: string): void {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-smoke-"));
  try {
    const moved = join(folder, "moved-nixdeploy");
    cpSync(binary, moved);
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(join(folder, "preload.ts"), 'console.log("the binary ran code from its working directory");\n');
    expectOutput({ binary: moved, cwd: folder, argument: "--version", wanted: `nixdeploy ${NIXDEPLOY_VERSION}\n` });
    expectOutput({ binary: moved, cwd: "/", argument: "--help", wanted: null });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type SmokeRun = {
  readonly binary: string;
  readonly cwd: string;
  readonly argument: string;
  /** Exactly this on stdout; null: anything but nothing. */
  readonly wanted: string | null;
};

function expectOutput({ binary, cwd, argument, wanted }: SmokeRun): void {
  const run = Bun.spawnSync([binary, argument], { cwd, stdin: "ignore", timeout: SMOKE_TIMEOUT_MS });
  const stdout = run.stdout.toString();
  const isRight = wanted === null ? stdout !== "" : stdout === wanted;
  if (run.exitCode !== 0 || !isRight) {
    throw new Error(
      `cannot use the built binary: \`nixdeploy ${argument}\` ended with ${run.exitCode ?? run.signalCode} and printed\n` +
        `${stdout}${run.stderr.toString()}`,
    );
  }
}

/** A binary for another platform cannot be run here. */
function isForThisHost(target: BuildOptions["target"]): boolean {
  return target === null || target === `bun-${process.platform}-${process.arch}`;
}

async function build({ outfile, target }: BuildOptions): Promise<void> {
  mkdirSync(dirname(outfile), { recursive: true });
  // Beside the output, so that the rename at the end is atomic.
  const folder = mkdtempSync(join(dirname(outfile), ".build-"));
  try {
    const binary = await compile(folder, target);
    if (isForThisHost(target)) {
      smokeRun(binary);
    } else {
      console.error(`build: ${target} cannot run here, so the binary was not tried`);
    }
    renameSync(binary, outfile);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const sizeMb = Math.round(statSync(outfile).size / 1e6);
  console.error(`build: ${outfile} (nixdeploy ${NIXDEPLOY_VERSION}, ${sizeMb} MB)`);
}

const { values } = parseArgs({ options: { outfile: { type: "string" }, target: { type: "string" } } });
await build({
  outfile: resolve(values.outfile ?? join(ROOT, "dist/nixdeploy")),
  // Bun itself refuses a target that it does not know.
  target: (values.target as Bun.Build.CompileTarget | undefined) ?? null,
});
