/**
 * What kind of thing a store path is, told by the names at its top. Pure.
 */

export const SYSTEM_TYPES = ["nixos", "darwin", "home-manager", "plain"] as const;
export type SystemType = (typeof SYSTEM_TYPES)[number];

const MARKERS: readonly (readonly [marker: string, type: SystemType])[] = [
  ["nixos-version", "nixos"],
  ["darwin-version", "darwin"],
  ["darwin-version.json", "darwin"],
  ["hm-version", "home-manager"],
  ["gen-version", "home-manager"],
];

/** @param names of the files at the top of the path; none for a path that is a file itself */
export function detectSystemType(names: ReadonlySet<string>): SystemType {
  return MARKERS.find(([marker]) => names.has(marker))?.[1] ?? "plain";
}

/** A whole machine, and not only a profile on one. */
export function isSystem(type: SystemType): type is "nixos" | "darwin" {
  return type === "nixos" || type === "darwin";
}

export function describeSystemType(type: SystemType): string {
  const words = {
    nixos: "a NixOS system",
    darwin: "a nix-darwin system",
    "home-manager": "a Home Manager generation",
    plain: "a plain package",
  };
  return words[type];
}
