/** Our Nix code under real Nix: what modules make of a configuration, and what an expression over `nix/lib` gives. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const LANGUAGE = join(ROOT, "test/nix-language");
const STAND_IN = join(LANGUAGE, "lib.nix");

/** Which `lib` evaluates: ours, and nixpkgs' where $NIXPKGS_LIB names it. */
const NIXPKGS_LIB = realTree("NIXPKGS_LIB", "modules.nix");
const NIX_DARWIN = realTree("NIX_DARWIN", "eval-config.nix");
const HOME_MANAGER = realTree("HOME_MANAGER", "modules/systemd.nix");

export const NIX_LIBS: readonly { readonly name: string; readonly path: string }[] = [
  { name: "the stand-in", path: STAND_IN },
  ...(NIXPKGS_LIB === null ? [] : [{ name: "nixpkgs' lib", path: NIXPKGS_LIB }]),
];

export type ModuleKind = "nixos" | "darwin" | "home";

/** Whose real modules are here, besides the stand-in. */
export const REAL_SYSTEMS: readonly ModuleKind[] = [
  ...(hasInNixpkgs("nixos/lib/utils.nix") ? (["nixos"] as const) : []),
  ...(NIX_DARWIN === null ? [] : (["darwin"] as const)),
  ...(HOME_MANAGER === null ? [] : (["home"] as const)),
];

/** What a variable names; null when it is not set. @throws Error when it is something else */
function realTree(variable: string, mark: string): string | null {
  const path = process.env[variable] ?? "";
  if (path === "") return null;
  if (!existsSync(join(path, mark))) throw new Error(`${variable}=${path} is not what it should be: it has no ${mark}`);
  return path;
}

/** Beside its `lib`: a whole nixpkgs has it. */
function hasInNixpkgs(path: string): boolean {
  return NIXPKGS_LIB !== null && existsSync(join(dirname(NIXPKGS_LIB), path));
}

export type Evaluation = {
  /** Nix text of a list of modules. */
  readonly modules: string;
  readonly kind?: ModuleKind;
  readonly platform?: "linux" | "darwin";
  /** PREFIX/bin/nixdeploy is the program. */
  readonly prefix?: string;
  readonly libPath?: string;
  /** Of the configuration; default: all of it. */
  readonly attribute?: string;
};

/** The command that prints what the modules make, as JSON; nothing is built. */
export function evaluationOf(evaluation: Evaluation): string[] {
  const {
    modules,
    kind = "nixos",
    platform = "linux",
    prefix = "/usr/local",
    libPath = STAND_IN,
    attribute,
  } = evaluation;
  const settings = [
    `libPath = ${libPath}; kind = "${kind}"; platform = "${platform}";`,
    `prefix = ${JSON.stringify(prefix)}; modules = ${modules};`,
  ].join(" ");
  const config = `import ${LANGUAGE}/evaluate.nix { ${settings} }`;
  return evaluate(attribute === undefined ? config : `(${config}).${attribute}`);
}

/** The command that prints, as JSON, the files that the real module systems make of modules: name → text. */
export function realEvaluationOf({
  modules,
  kind = "nixos",
  platform = "linux",
  prefix = "/usr/local",
}: Evaluation): string[] {
  if (NIXPKGS_LIB === null) throw new Error("NIX_DARWIN and HOME_MANAGER need nixpkgs' lib: set NIXPKGS_LIB, too");
  const settings = [
    `nixpkgs = ${dirname(NIXPKGS_LIB)};`,
    NIX_DARWIN === null ? "" : `nixDarwin = ${NIX_DARWIN};`,
    HOME_MANAGER === null ? "" : `homeManager = ${HOME_MANAGER};`,
    `kind = "${kind}"; platform = "${platform}"; prefix = ${JSON.stringify(prefix)}; modules = ${modules};`,
  ].join(" ");
  return evaluate(`import ${LANGUAGE}/real.nix { ${settings} }`);
}

/** The command that prints what an expression over `lib` (ours), `pkgs` and `nixpkgsLib` gives, as JSON. */
export function libExpression(expression: string, { libPath = STAND_IN }: { readonly libPath?: string } = {}): string {
  const stubs = `import ${LANGUAGE}/stubs.nix { lib = nixpkgsLib; }`;
  return `let nixpkgsLib = import ${libPath}; inherit (${stubs}) pkgs; lib = import ${ROOT}/nix/lib { } pkgs; in ${expression}`;
}

export function evaluate(expression: string): string[] {
  return ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression];
}
