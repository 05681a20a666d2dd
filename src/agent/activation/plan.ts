/**
 * Whether a store path may be activated at all here, told before anything is touched. Pure.
 *
 *                switch   boot   test   dry-activate
 *   nixos          ✓       ✓      ✓         ✓
 *   plain          ✓                        ✓
 *
 * A NixOS system must be for this machine's platform, and have the specialisation that runs, unless it is only to take
 * effect at the next boot, which boots the system itself.
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
  /** The platform that a NixOS system says it is for, such as `x86_64-linux`; null when it does not say. */
  readonly platform: string | null;
  readonly machinePlatform: string;
  /** The specialisation that runs, and whether the new system has it; null when none runs. */
  readonly specialisation: { readonly name: string; readonly isInNew: boolean } | null;
};

/** Platforms whose programs a machine of another one runs, too. */
const ALSO_RUNS: Readonly<Record<string, readonly string[]>> = { "x86_64-linux": ["i686-linux"] };

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
      return findNixosRefusal(options);
    case "plain":
      return mode === "boot" || mode === "test" ? `it is ${what}, which has no mode ${mode}` : null;
    case "darwin":
    case "home-manager":
      return `it is ${what}, which this version of nixdeploy does not support yet`;
    default:
      return type satisfies never;
  }
}

function findNixosRefusal(options: PlanOptions): string | null {
  const { currentSystem, platform, machinePlatform, specialisation, mode } = options;
  const isForeign = platform !== null && platform !== machinePlatform;
  if (isForeign && ALSO_RUNS[machinePlatform]?.includes(platform) !== true) {
    return `it is a system for ${platform}, and this machine is ${machinePlatform}`;
  }
  if (currentSystem === null) return "this machine runs no NixOS system that it could go back to";
  if (specialisation === null || specialisation.isInNew || mode === "boot") return null;
  return `this machine runs the specialisation ${specialisation.name}, which the new system does not have`;
}
