/**
 * The rules of the house that neither the compiler nor the linter knows (ARCHITECTURE.md): which part may
 * import which, who owns which package, where time and chance come from, what must not stand in any file.
 *
 * Pure: a file's path and text in, sentences about its faults out. Scans text, because the transpiler's own list of
 * imports leaves out type imports, and those count too: they carry the concepts of one part into another. Length of
 * functions, default exports and import cycles are the linter's (biome.json).
 */

/** A file of the repository; the path is relative to the root. */
export type SourceFile = { readonly path: string; readonly text: string };

const FILE_LINES_MAX = 400;
/** Tests and their helpers: tables of cases, whole scenarios. */
const TEST_FILE_LINES_MAX = 600;

/** The parts of src/, most particular first: a file belongs to the first whose prefix its path has. */
const PARTS: readonly { readonly name: string; readonly prefix: string; readonly mayImport: readonly string[] }[] = [
  { name: "start", prefix: "src/start.ts", mayImport: ["main", "contracts"] },
  { name: "main", prefix: "src/main.ts", mayImport: ["commands", "contracts"] },
  {
    name: "commands",
    prefix: "src/commands/",
    mayImport: [
      ...["doctor", "client", "server", "agent", "activation", "link", "journal", "machine"],
      ...["cache", "daemon", "contracts", "formats"],
    ],
  },
  {
    name: "doctor",
    prefix: "src/doctor/",
    mayImport: [
      ...["client", "server", "agent", "activation", "link", "journal", "machine"],
      ...["cache", "daemon", "contracts", "formats"],
    ],
  },
  { name: "client", prefix: "src/client/", mayImport: ["activation", "cache", "daemon", "contracts", "formats"] },
  { name: "server", prefix: "src/server/", mayImport: ["cache", "daemon", "contracts", "formats"] },
  {
    name: "activation",
    prefix: "src/agent/activation/",
    mayImport: ["agent", "link", "journal", "machine", "cache", "daemon", "contracts", "formats"],
  },
  { name: "machine", prefix: "src/agent/machine/", mayImport: ["daemon", "contracts", "formats"] },
  { name: "journal", prefix: "src/agent/journal/", mayImport: ["machine", "contracts", "formats"] },
  { name: "link", prefix: "src/agent/link/", mayImport: ["journal", "machine", "contracts", "formats"] },
  {
    name: "agent",
    prefix: "src/agent/",
    mayImport: ["activation", "link", "journal", "machine", "cache", "daemon", "contracts", "formats"],
  },
  { name: "cache", prefix: "src/nix/cache/", mayImport: ["daemon", "contracts", "formats"] },
  { name: "daemon", prefix: "src/nix/daemon/", mayImport: ["contracts", "formats"] },
  { name: "formats", prefix: "src/nix/", mayImport: [] },
  { name: "contracts", prefix: "src/", mayImport: ["formats"] },
];

/** Where a package may be imported: a file, or a folder when it ends in a slash. Every package has an owner. */
const PACKAGE_OWNERS: Readonly<Record<string, string>> = {
  "@noble/ed25519": "src/nix/signature.ts",
  "bun:ffi": "src/c-library.ts",
  "bun:sqlite": "src/server/database/",
  citty: "src/commands/",
  consola: "src/log.ts",
  execa: "src/",
  hono: "src/server/",
  kysely: "src/server/database/",
  "undici-real": "src/http/pieces.ts",
  ws: "src/agent/",
  zod: "src/",
};

/** Packages that only one file imports, wherever it is. */
const ONE_FILE_PACKAGES = ["execa", "ws"];

/** All that the pure formats may use of the platform. */
const PURE_BUILTINS = ["node:crypto", "node:buffer"];

/** Words that only some files of src/ may use. */
const RESERVED_WORDS: readonly { readonly word: RegExp; readonly owners: readonly string[]; readonly why: string }[] = [
  {
    word: /(?<![.\w])(?:(?:Date\.now|Math\.random|performance\.now)\b|new Date\(\))/,
    owners: ["src/runtime.ts"],
    why: "time and chance come from Clock and Random (src/runtime.ts)",
  },
  {
    word: /(?<![.\w])(?:setTimeout|setInterval)\(/,
    owners: ["src/runtime.ts", "src/main.ts"],
    why: "timers belong to Clock (src/runtime.ts)",
  },
  { word: /\bprocess\.env\b/, owners: ["src/main.ts"], why: "the environment is read in src/main.ts" },
  { word: /\bprocess\.(?:exit\b|exitCode\b)/, owners: ["src/main.ts"], why: "only src/main.ts ends the process" },
  { word: /(?<![.\w])fetch\(/, owners: ["src/http/client.ts"], why: "src/http/client.ts is the one HTTP client" },
  { word: /\bsubCommands\b/, owners: [], why: "groups are NixdeployGroup: a citty command with both runs both" },
  { word: /^export\b[^;=({]*(?:\{[^}]*\})?\s*from\s*["']/m, owners: [], why: "no barrels: import from where it is" },
];

/** Machine paths, registry hosts and unfinished business; written so that this file does not match itself. */
const BANNED_ANYWHERE: readonly { readonly word: RegExp; readonly why: string }[] = [
  { word: /\/w[o]rk\/|\/f[a]rm\/|\.\.\/sh[a]red|\.\.\/\.libr[a]ry/, why: "a path of somebody's machine" },
  { word: /registry\.npm[j]s|deb\.debi[a]n/, why: "the host of a package registry" },
  { word: /\bFIX[M]E\b|\bXX[X]\b/, why: "unfinished business belongs into an issue" },
];

const BANNED_IN_TESTS = /\b(?:it|test|describe)(?:\.\w+)*\.(?:skip|only|todo)\s*[(.`]/;

/** What is wrong with this one file, one sentence each. */
export function findFaults(file: SourceFile): string[] {
  const isCode = file.path.endsWith(".ts") || file.path.endsWith(".tsx");
  return [
    ...findBannedWords(file),
    ...(isCode ? findLengthFaults(file) : []),
    ...(isCode && file.path.startsWith("src/") ? [...findImportFaults(file), ...findReservedWords(file)] : []),
  ];
}

/** What is wrong between files: a package of one file that several import. */
export function findSharedPackages(files: readonly SourceFile[]): string[] {
  return ONE_FILE_PACKAGES.flatMap((name) => {
    const users = files.filter(
      ({ path, text }) => path.startsWith("src/") && listImports(text).map(packageOf).includes(name),
    );
    return users.length > 1
      ? [`${name} is imported by ${users.map(({ path }) => path).join(" and ")}: one file owns it`]
      : [];
  });
}

/** Everything that a file imports or re-exports, types and dynamic imports too. */
export function listImports(text: string): string[] {
  const code = withoutComments(text);
  const statements = code.matchAll(/(?:^|[\n;])\s*(?:import|export)\b(?:[^;"'`]*?\bfrom)?\s*["']([^"']+)["']/g);
  const calls = code.matchAll(/\bimport\(\s*["']([^"']+)["']/g);
  return [...statements, ...calls].map(([, specifier = ""]) => specifier);
}

function findImportFaults({ path, text }: SourceFile): string[] {
  const part = partOf(path);
  return listImports(text).flatMap((specifier) => {
    if (!specifier.startsWith(".")) {
      return findPackageFaults(path, specifier);
    }
    const target = resolveImport(path, specifier);
    const targetPart = target.startsWith("src/") ? partOf(target) : null;
    const isAllowed = targetPart === null || targetPart === part || part.mayImport.includes(targetPart.name);
    return isAllowed ? [] : [`${path}: imports ${target}: ${part.name} may not import ${targetPart.name}`];
  });
}

function findPackageFaults(path: string, specifier: string): string[] {
  if (specifier.startsWith("node:") || specifier === "bun") {
    const isPure = partOf(path).name !== "formats" || PURE_BUILTINS.includes(specifier);
    return isPure ? [] : [`${path}: imports ${specifier}: src/nix is pure`];
  }
  const owner = PACKAGE_OWNERS[packageOf(specifier)];
  if (owner === undefined) {
    return [`${path}: imports ${specifier}, which has no owner (house-rules.ts)`];
  }
  const isOwner = owner.endsWith("/") ? path.startsWith(owner) : path === owner;
  return isOwner ? [] : [`${path}: imports ${specifier}, which belongs to ${owner}`];
}

function findReservedWords({ path, text }: SourceFile): string[] {
  // The handler of a server has the name of the client's function: what is declared with it is not a call.
  const code = withoutComments(text).replace(/\bfetch\((?:\s*\w+\??\s*:|[\w\s,]*\)\s*\{)/g, "");
  return RESERVED_WORDS.filter(({ word, owners }) => !owners.includes(path) && word.test(code)).map(
    ({ word, why }) => `${path}: ${JSON.stringify(word.exec(code)?.[0].trim())}: ${why}`,
  );
}

function findBannedWords({ path, text }: SourceFile): string[] {
  const found = BANNED_ANYWHERE.filter(({ word }) => word.test(text)).map(
    ({ word, why }) => `${path}: ${JSON.stringify(word.exec(text)?.[0])}: ${why}`,
  );
  const hidden = path.startsWith("test/") ? BANNED_IN_TESTS.exec(withoutComments(text)) : null;
  return hidden === null ? found : [...found, `${path}: ${hidden[0].slice(0, -1)} hides tests`];
}

function findLengthFaults({ path, text }: SourceFile): string[] {
  const lines = text.split("\n").length - 1;
  const linesMax = path.startsWith("test/") ? TEST_FILE_LINES_MAX : FILE_LINES_MAX;
  return lines > linesMax ? [`${path}: ${lines} lines; more than ${linesMax} is two ideas`] : [];
}

function partOf(path: string) {
  const part = PARTS.find(({ prefix }) => path.startsWith(prefix));
  if (part === undefined) {
    throw new Error(`${path} is not below src/`);
  }
  return part;
}

/** `hono/bun` → `hono`, `@noble/ed25519` stays. */
function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

function resolveImport(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

/** Comments may name what code may not; strings are left alone, so a "//" within one only hides the rest of its line. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}
