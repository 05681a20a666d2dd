/**
 * Whether a store path may be activated at all here, told before anything is touched. Pure.
 *
 *                switch   boot   test   dry-activate
 *   nixos          ✓       ✓      ✓         ✓
 *   darwin         ✓                        ✓          as root
 *   home-manager   ✓                        ✓
 *   plain          ✓                        ✓
 *
 * A system must be for this machine's platform. A NixOS system must have the specialisation that runs, unless it is only
 * to take effect at the next boot, which boots the system itself.
 */
import type { Mode } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { describeSystemType, isSystem, type SystemType } from "../machine/detect.ts";

export type PlanOptions = {
  readonly type: SystemType;
  /** Type of what the profile names now; null when it names nothing. */
  readonly previousType: SystemType | null;
  /** What /run/current-system names. */
  readonly currentSystem: StorePath | null;
  readonly mode: Mode;
  readonly isRoot: boolean;
  /** The policy asks for a reboot. */
  readonly reboot?: boolean;
  /** Absolute path of the profile's link. */
  readonly profilePath: string;
  /** The platform that a system says it is for, such as `x86_64-linux`; null when it does not say. */
  readonly platform: string | null;
  readonly machinePlatform: string;
  /** The specialisation that runs, and whether the new system has it; null when none runs. */
  readonly specialisation: { readonly name: string; readonly isInNew: boolean } | null;
};

/** Platforms whose programs a machine of another one runs, too. */
const ALSO_RUNS: Readonly<Record<string, readonly string[]>> = {
  "x86_64-linux": ["i686-linux"],
  "aarch64-darwin": ["x86_64-darwin"],
};

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";

/** @returns why not, continuing "cannot activate PATH: ", or null when it may go on */
export function findRefusal(options: PlanOptions): string | null {
  const { type, previousType, mode, profilePath, reboot = false } = options;
  const what = describeSystemType(type);
  if (profilePath === SYSTEM_PROFILE && !isSystem(type)) {
    return `it is ${what}, and the profile \`system\` takes only NixOS or nix-darwin`;
  }
  if (previousType !== null && previousType !== type) {
    return `it is ${what}, and ${profilePath} holds ${describeSystemType(previousType)}: a profile keeps its type`;
  }
  if (reboot && type !== "nixos") return `it is ${what}, which no reboot takes into effect`;
  if (reboot && (mode === "test" || mode === "dry-activate")) return `mode ${mode} does not reboot`;
  if (type !== "nixos" && (mode === "boot" || mode === "test")) return `it is ${what}, which has no mode ${mode}`;
  return isSystem(type) ? findSystemRefusal(type, options) : null;
}

const SYSTEM_NAME = { nixos: "NixOS system", darwin: "nix-darwin system" } as const;

function findSystemRefusal(type: "nixos" | "darwin", options: PlanOptions): string | null {
  const { currentSystem, platform, machinePlatform, specialisation, mode, reboot = false } = options;
  const isForeign = platform !== null && platform !== machinePlatform;
  if (isForeign && ALSO_RUNS[machinePlatform]?.includes(platform) !== true) {
    return `it is a system for ${platform}, and this machine is ${machinePlatform}`;
  }
  if (type === "darwin" && !options.isRoot) return "it is a nix-darwin system, which only root can activate";
  if (currentSystem === null) return `this machine runs no ${SYSTEM_NAME[type]} that it could go back to`;
  // A boot brings the system itself.
  if (specialisation === null || specialisation.isInNew || mode === "boot" || reboot) return null;
  return `this machine runs the specialisation ${specialisation.name}, which the new system does not have`;
}
