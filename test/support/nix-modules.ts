/** Our Nix code under real Nix: what modules make of a configuration, and what an expression over `nix/lib` gives. */
import { existsSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const LANGUAGE = join(ROOT, "test/nix-language");
const STAND_IN = join(LANGUAGE, "lib.nix");

/** Which `lib` evaluates: ours, and nixpkgs' where $NIXPKGS_LIB names it. */
export const NIX_LIBS: readonly { readonly name: string; readonly path: string }[] = [
  { name: "the stand-in", path: STAND_IN },
  ...realLib(process.env["NIXPKGS_LIB"]),
];

function realLib(path: string | undefined) {
  if (path === undefined || path === "") return [];
  if (!existsSync(join(path, "modules.nix"))) throw new Error(`NIXPKGS_LIB=${path} is not nixpkgs' lib`);
  return [{ name: "nixpkgs' lib", path }];
}

export type Evaluation = {
  /** Nix text of a list of modules. */
  readonly modules: string;
  readonly kind?: "nixos" | "darwin" | "home";
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

/** The command that prints what an expression over `lib` (ours), `pkgs` and `nixpkgsLib` gives, as JSON. */
export function libExpression(expression: string, { libPath = STAND_IN }: { readonly libPath?: string } = {}): string {
  const stubs = `import ${LANGUAGE}/stubs.nix { lib = nixpkgsLib; }`;
  return `let nixpkgsLib = import ${libPath}; inherit (${stubs}) pkgs; lib = import ${ROOT}/nix/lib { } pkgs; in ${expression}`;
}

export function evaluate(expression: string): string[] {
  return ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression];
}
