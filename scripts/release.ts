/**
 * `npm run release [-- FLAGS]`: the archives of a release in dist/release, with SHA256SUMS and its signature.
 *
 *   --only NAME    only this platform (repeatable)
 *   --out DIR      instead of dist/release; the folder is replaced
 *   --unsigned     leave out the signature, which otherwise is an error
 *
 * The key is the file that NIXDEPLOY_RELEASE_KEY_FILE names: an Ed25519 key as PEM (`openssl genpkey -algorithm
 * ed25519`) whose public half is docs/release-key.pem. The same commit gives the same bytes, signature included.
 * Ends with what could be tried on this machine and what could not.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { compile } from "../build.ts";
import { NIXDEPLOY_VERSION } from "../src/version.ts";
import { BunPackageError, ensureBun, ROOT } from "./bun-package.mjs";
import { type ArchiveEntry, createArchive } from "./release/archive.ts";
import { checkExecutable } from "./release/executable.ts";
import { signAdHoc } from "./release/mach-o.ts";
import {
  formatSums,
  parseReleaseKey,
  SIGNATURE_NAME,
  SUMS_NAME,
  type SummedFile,
  signSums,
} from "./release/signature.ts";
import { type SmokeResult, trySmoke } from "./release/smoke.ts";
import { RELEASE_TARGETS, type ReleaseTarget } from "./release/targets.ts";

const KEY_VARIABLE = "NIXDEPLOY_RELEASE_KEY_FILE";
const PUBLIC_KEY_FILE = join(ROOT, "docs/release-key.pem");
const DOCUMENTS = ["README.md", "CHANGELOG.md", "LICENSE", "docs/install.md"];

/** Something that the person at the keyboard can do something about: printed as one line. */
class ReleaseError extends Error {}

type ReleaseOptions = {
  readonly targets: readonly ReleaseTarget[];
  readonly folder: string;
  readonly key: ReturnType<typeof parseReleaseKey> | null;
};

function readOptions(words: readonly string[]): ReleaseOptions {
  const { values } = parseArgs({
    args: [...words],
    options: {
      only: { type: "string", multiple: true },
      out: { type: "string" },
      unsigned: { type: "boolean", default: false },
    },
  });
  const names = RELEASE_TARGETS.map(({ name }) => name);
  const unknown = values.only?.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new ReleaseError(`there is no platform ${unknown}; there are ${names.join(", ")}`);
  return {
    targets: RELEASE_TARGETS.filter(({ name }) => values.only?.includes(name) ?? true),
    folder: resolve(values.out ?? join(ROOT, "dist/release")),
    key: values.unsigned ? null : readKey(),
  };
}

function readKey(): NonNullable<ReleaseOptions["key"]> {
  const file = process.env[KEY_VARIABLE];
  if (!file) {
    throw new ReleaseError(
      `unsigned: ${KEY_VARIABLE} names no key file; --unsigned makes a release without a signature`,
    );
  }
  const publicPem = readOrNull(PUBLIC_KEY_FILE);
  if (publicPem === null) {
    const how = `openssl pkey -in "$${KEY_VARIABLE}" -pubout -out docs/release-key.pem`;
    throw new ReleaseError(`unsigned: users have no key to verify with; write it (${how}) and commit it`);
  }
  const privatePem = readOrNull(file);
  if (privatePem === null) throw new ReleaseError(`unsigned: the key file ${file} cannot be read`);
  try {
    return parseReleaseKey(privatePem, publicPem);
  } catch (error) {
    throw new ReleaseError(`unsigned: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function readOrNull(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // The caller says what is missing.
    return null;
  }
}

type BuiltTarget = SummedFile & { readonly target: ReleaseTarget; readonly smoke: SmokeResult };

async function buildTarget(target: ReleaseTarget, workFolder: string): Promise<BuiltTarget> {
  const executablePath = ensureBun({ platforms: [target.bunPlatform], say });
  const folder = join(workFolder, target.name);
  mkdirSync(folder);
  const binary = await compile({ folder, cross: { target: target.compileTarget, executablePath } });
  const compiled = readFileSync(binary);
  const contents = target.name === "macos-x64" ? signAdHoc(compiled, "nixdeploy") : compiled;
  checkExecutable(contents, target.format);
  const smoke = trySmoke(binary, target.format);
  rmSync(folder, { recursive: true });
  const base = `nixdeploy-${NIXDEPLOY_VERSION}-${target.name}`;
  const documents = DOCUMENTS.map((name): ArchiveEntry => {
    return { name: `${base}/${name}`, mode: 0o644, contents: readFileSync(join(ROOT, name)) };
  });
  const archive = createArchive([{ name: `${base}/nixdeploy`, mode: 0o755, contents }, ...documents]);
  return { name: `${base}.tar.gz`, contents: archive, target, smoke };
}

/** @returns lines for the end: what was tried */
async function release({ targets, folder, key }: ReleaseOptions): Promise<string[]> {
  mkdirSync(dirname(folder), { recursive: true });
  const workFolder = mkdtempSync(join(dirname(folder), ".release-"));
  try {
    const finished = join(workFolder, "finished");
    mkdirSync(finished);
    const built: (Omit<BuiltTarget, "contents"> & { readonly sum: string })[] = [];
    for (const target of targets) {
      const one = await buildTarget(target, workFolder);
      writeFileSync(join(finished, one.name), one.contents);
      built.push({ name: one.name, target, smoke: one.smoke, sum: formatSums([one]) });
      say(`${one.name} (${Math.round(one.contents.length / 1e6)} MB)`);
    }
    const sums = built
      .map(({ sum }) => sum)
      .sort((left, right) => (left.slice(66) < right.slice(66) ? -1 : 1))
      .join("");
    writeFileSync(join(finished, SUMS_NAME), sums);
    if (key !== null) writeFileSync(join(finished, SIGNATURE_NAME), signSums(sums, key));
    rmSync(folder, { recursive: true, force: true });
    renameSync(finished, folder);
    return built.map(({ target, smoke }) => `${target.name}: ${describeSmoke(smoke)}`);
  } finally {
    rmSync(workFolder, { recursive: true, force: true });
  }
}

function describeSmoke(smoke: SmokeResult): string {
  return smoke.kind === "ran" ? `tried, ${smoke.how}` : `NOT tried: ${smoke.why}`;
}

function say(text: string): void {
  console.log(`release: ${text}`);
}

async function main(words: readonly string[]): Promise<number> {
  try {
    const options = readOptions(words);
    const lines = await release(options);
    for (const line of lines) say(line);
    say(`${options.folder} ${options.key === null ? "is complete, UNSIGNED" : "is complete and signed"}`);
    return 0;
  } catch (error) {
    // What parseArgs throws for a wrong flag.
    const isUsage = error instanceof TypeError && "code" in error;
    if (isUsage || error instanceof ReleaseError || error instanceof BunPackageError) {
      console.error(`release: ${error.message}`);
    } else {
      console.error(error);
    }
    return isUsage ? 2 : 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
