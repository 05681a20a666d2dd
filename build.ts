/**
 * Builds `dist/nixdeploy`: one file that runs wherever it is moved.
 *
 *   bun build.ts [--outfile FILE]
 *
 * ESM bytecode with lazy chunks starts in a few milliseconds. The compiled program reads neither `.env` nor
 * `bunfig.toml` from where it is started: it runs as root on devices, and a `preload` there would be code execution.
 * Bun can report success for a binary that dies at its start, so the result is always run, moved away and beside such
 * files, before it replaces the previous one. For other platforms: scripts/release.ts.
 */
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { NIXDEPLOY_VERSION } from "./src/version.ts";

const ROOT = import.meta.dir;
const SMOKE_TIMEOUT_MS = 60_000;

export type CompileOptions = {
  /** The binary is `folder`/nixdeploy; source maps are written beside it. */
  readonly folder: string;
  /** For another platform than this one's. */
  readonly cross?: {
    readonly target: Bun.Build.CompileTarget;
    /** Bun for that platform, which becomes part of the binary. */
    readonly executablePath: string;
  };
};

/**
 * Compiles and returns the path of the binary, which has not been run. The same source, Bun and libraries give the
 * same bytes wherever they are.
 * @throws Error when the bundler fails; what it says goes to stderr
 */
export async function compile({ folder, cross }: CompileOptions): Promise<string> {
  const outfile = resolve(folder, "nixdeploy");
  // Files are named in the binary as seen from the working directory.
  process.chdir(ROOT);
  const result = await Bun.build({
    entrypoints: [join(ROOT, "src/start.ts")],
    compile: { outfile, autoloadDotenv: false, autoloadBunfig: false, ...cross },
    minify: true,
    bytecode: true,
    format: "esm",
    splitting: true,
    // undici asks for its own file's name, which would be the path of this checkout.
    define: { __filename: '"index.js"' },
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

export type SmokeOptions = {
  readonly binary: string;
  /** What runs it, for example an emulator; default: nothing. */
  readonly launcher?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
};

/**
 * Runs the binary as a user would who moved it somewhere else, in a directory full of traps.
 * @throws Error with what it printed when that was not right
 */
export function smokeRun({ binary, launcher = [], env = {} }: SmokeOptions): void {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-smoke-"));
  try {
    const moved = join(folder, "moved-nixdeploy");
    cpSync(binary, moved);
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(join(folder, "preload.ts"), 'console.log("the binary ran code from its working directory");\n');
    const command = [...launcher, moved];
    expectOutput({ command, env, cwd: folder, argument: "--version", wanted: `nixdeploy ${NIXDEPLOY_VERSION}\n` });
    expectOutput({ command, env, cwd: "/", argument: "--help", wanted: null });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type SmokeRun = {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly argument: string;
  /** Exactly this on stdout; null: anything but nothing. */
  readonly wanted: string | null;
};

function expectOutput({ command, env, cwd, argument, wanted }: SmokeRun): void {
  const run = Bun.spawnSync([...command, argument], {
    cwd,
    env: { ...process.env, ...env },
    stdin: "ignore",
    timeout: SMOKE_TIMEOUT_MS,
  });
  const stdout = run.stdout.toString();
  const isRight = wanted === null ? stdout !== "" : stdout === wanted;
  if (run.exitCode !== 0 || !isRight) {
    throw new Error(
      `cannot use the built binary: \`nixdeploy ${argument}\` ended with ${run.exitCode ?? run.signalCode} and printed\n` +
        `${stdout}${run.stderr.toString()}`,
    );
  }
}

async function build(outfile: string): Promise<void> {
  mkdirSync(dirname(outfile), { recursive: true });
  // Beside the output, so that the rename at the end is atomic.
  const folder = mkdtempSync(join(dirname(outfile), ".build-"));
  try {
    const binary = await compile({ folder });
    smokeRun({ binary });
    renameSync(binary, outfile);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const sizeMb = Math.round(statSync(outfile).size / 1e6);
  console.error(`build: ${outfile} (nixdeploy ${NIXDEPLOY_VERSION}, ${sizeMb} MB)`);
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { outfile: { type: "string" } } });
  await build(resolve(values.outfile ?? join(ROOT, "dist/nixdeploy")));
}
