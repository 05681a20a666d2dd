/**
 * What a store path's name says of the package in it: `glibc-2.38-66-bin` is `glibc`, version `2.38-66`. Pure.
 *
 *     name of a store path = package [ "-" version ] [ "-" output ]
 *
 * The version begins behind the first dash that no letter follows. Nix itself takes any word at the end for an output;
 * here only known ones are, so that `linux-6.6-rt` keeps its version and `etc-hosts` its name.
 * Source: Nix `src/libstore/names.cc` (`DrvName`, `compareVersions`) and `src/nix/diff-closures.cc`.
 */

export type PackageName = {
  readonly name: string;
  /** "" where the name has none: configuration files, units, scripts. */
  readonly version: string;
};

const OUTPUTS: ReadonlySet<string> = new Set(
  (
    "out bin dev lib lib32 lib64 man doc info devdoc devman debug static dist data locale terminfo modules " +
    "libgcc getent nixsupport pam su dnsutils host npm py python tools"
  ).split(" "),
);

/** @param text the name of a store path, without its hash part */
export function parsePackageName(text: string): PackageName {
  const dash = text.lastIndexOf("-");
  const inner = OUTPUTS.has(text.slice(dash + 1)) ? splitVersion(text.slice(0, Math.max(0, dash))) : null;
  return inner === null || inner.version === "" ? splitVersion(text) : inner;
}

function splitVersion(text: string): PackageName {
  const at = text.search(/-[^A-Za-z]/);
  return at <= 0 ? { name: text, version: "" } : { name: text.slice(0, at), version: text.slice(at + 1) };
}

/** Below, above or 0 as Nix orders versions: `2.3pre1` < `2.3` < `2.3a` < `2.3.1` < `2.10`. */
export function compareVersions(a: string, b: string): number {
  const left = splitComponents(a);
  const right = splitComponents(b);
  for (let index = 0; index < Math.max(left.length, right.length); index += 1) {
    const order = compareComponents(left[index] ?? "", right[index] ?? "");
    if (order !== 0) return order;
  }
  return 0;
}

function splitComponents(version: string): readonly string[] {
  return version.match(/\d+|[^\d.-]+/g) ?? [];
}

function compareComponents(a: string, b: string): number {
  if (a === b) return 0;
  if (isBelow(a, b)) return -1;
  return isBelow(b, a) ? 1 : 0;
}

function isBelow(a: string, b: string): boolean {
  const [isNumberA, isNumberB] = [/^\d+$/.test(a), /^\d+$/.test(b)];
  if (isNumberA && isNumberB) return BigInt(a) < BigInt(b);
  if (a === "" && isNumberB) return true;
  if (a === "pre") return b !== "pre";
  if (b === "pre") return false;
  if (isNumberB) return true;
  return isNumberA ? false : a < b;
}
