/**
 * From what was asked for and what is there to the steps of an activation, as data, or to a refusal. Pure; `run.ts`
 * executes the steps and `judge.ts` says what their ends mean.
 *
 *              switch            boot            test    dry-activate
 *   plain      set               set             –       –
 *   nixos      set, switch       set, boot       test    dry-activate
 *
 * nix-darwin and Home Manager are refused until their activation is built.
 */
import type { Mode } from "../../deployment.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { describeSystemType, type SystemType } from "./detect.ts";

export type Step =
  /** `nix-env --profile … --set …` */
  | { readonly kind: "set-profile" }
  /** The system's own `switch-to-configuration` with an action. */
  | { readonly kind: "switch"; readonly action: Mode }
  /** The operator's script, which judges the activated system. */
  | { readonly kind: "check-script"; readonly script: StorePath };

export type ActivationPlan =
  | { readonly kind: "steps"; readonly steps: readonly Step[] }
  /** Nothing is touched; the reason continues "cannot activate PATH: ". */
  | { readonly kind: "refused"; readonly reason: string };

export type PlanActivationOptions = {
  readonly type: SystemType;
  /** Type of what the profile names now; null when it names nothing. */
  readonly previousType: SystemType | null;
  readonly mode: Mode;
  /** Absolute path of the profile's link. */
  readonly profilePath: string;
  readonly rollbackScript: StorePath | null;
};

const SYSTEM_PROFILE = "/nix/var/nix/profiles/system";

export function planActivation(options: PlanActivationOptions): ActivationPlan {
  const { type, previousType, mode, profilePath } = options;
  const isSystem = type === "nixos" || type === "darwin";
  if (profilePath === SYSTEM_PROFILE && !isSystem) {
    return refuse(`it is ${describeSystemType(type)}, and the profile \`system\` takes only NixOS or nix-darwin`);
  }
  if (previousType !== null && previousType !== type) {
    const has = describeSystemType(previousType);
    return refuse(`it is ${describeSystemType(type)}, and ${profilePath} holds ${has}: a profile keeps its type`);
  }
  switch (type) {
    case "plain":
      return {
        kind: "steps",
        steps: mode === "switch" || mode === "boot" ? withCheck([{ kind: "set-profile" }], options) : [],
      };
    case "nixos":
      return { kind: "steps", steps: planNixos(options) };
    case "darwin":
    case "home-manager":
      return refuse(`it is ${describeSystemType(type)}, which this version of nixdeploy does not support yet`);
    default:
      return type satisfies never;
  }
}

function planNixos(options: PlanActivationOptions): readonly Step[] {
  const { mode } = options;
  const action: Step = { kind: "switch", action: mode };
  switch (mode) {
    case "switch":
      return withCheck([{ kind: "set-profile" }, action], options);
    case "boot":
      return [{ kind: "set-profile" }, action];
    case "test":
      return withCheck([action], options);
    case "dry-activate":
      return [action];
    default:
      return mode satisfies never;
  }
}

function withCheck(steps: readonly Step[], { rollbackScript }: PlanActivationOptions): readonly Step[] {
  return rollbackScript === null ? steps : [...steps, { kind: "check-script", script: rollbackScript }];
}

function refuse(reason: string): ActivationPlan {
  return { kind: "refused", reason };
}
