/**
 * Whether a store path may be activated at all here, told before anything is touched. Pure.
 *
 *                switch   boot   test   dry-activate
 *   nixos          ✓       ✓      ✓         ✓
 *   plain          ✓                        ✓
 *
 * nix-darwin and Home Manager are refused until their activation is built.
 */
import type { Mode } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { describeSystemType, type SystemType } from "./detect.ts";

export type PlanOptions = {
  readonly type: SystemType;
  /** Type of what the profile names now; null when it names nothing. */
  readonly previousType: SystemType | null;
  /** What /run/current-system names. */
  readonly currentSystem: StorePath | null;
  readonly mode: Mode;
  /** Absolute path of the profile's link. */
  readonly profilePath: string;
};

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";

/** @returns why not, continuing "cannot activate PATH: ", or null when it may go on */
export function findRefusal(options: PlanOptions): string | null {
  const { type, previousType, mode, profilePath } = options;
  const what = describeSystemType(type);
  const isSystem = type === "nixos" || type === "darwin";
  if (profilePath === SYSTEM_PROFILE && !isSystem) {
    return `it is ${what}, and the profile \`system\` takes only NixOS or nix-darwin`;
  }
  if (previousType !== null && previousType !== type) {
    return `it is ${what}, and ${profilePath} holds ${describeSystemType(previousType)}: a profile keeps its type`;
  }
  switch (type) {
    case "nixos":
      return options.currentSystem === null ? "this machine runs no NixOS system that it could go back to" : null;
    case "plain":
      return mode === "boot" || mode === "test" ? `it is ${what}, which has no mode ${mode}` : null;
    case "darwin":
    case "home-manager":
      return `it is ${what}, which this version of nixdeploy does not support yet`;
    default:
      return type satisfies never;
  }
}
