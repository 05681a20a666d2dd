/** The flags that say how an activation is done and judged: those of `activate`, and of `local` at the machine itself. */
import { type ActivationPolicy, INHIBITOR_POLICIES, MODES } from "../deployment.ts";
import { NixdeployError } from "../errors.ts";
import type { ArgDeclarations, ArgValues } from "./command-line/args.ts";

export const POLICY_ARGS = {
  mode: { type: "enum", options: MODES, default: "switch", description: "What to do on the device" },
  onUnitFailure: {
    type: "enum",
    options: ["rollback", "keep"],
    description: "When units of the new system fail: go back (default), or keep it and call it degraded",
  },
  confirmWindowMs: {
    type: "duration",
    flag: "confirm-window",
    description: "How long a new version may take to prove itself before it is undone (default: 60s)",
  },
  activationTimeoutMs: {
    type: "duration",
    flag: "activation-timeout",
    description: "How long the activation script may run (default: 30m)",
  },
  reboot: {
    type: "boolean",
    description: "Reboot into it: it proves itself after the reboot, or the machine boots the old system again",
  },
  inhibitors: {
    type: "enum",
    options: INHIBITOR_POLICIES,
    description: "When it changes what must not change while the system runs: refuse it (default), or reboot into it",
  },
  allowUnprovenBoot: {
    type: "boolean",
    description: "Reboot even where the boot loader cannot fall back by itself",
  },
  allowAgentRemoval: {
    type: "boolean",
    description: "Let a NixOS system lack the agent's unit, or the one that goes back after a reboot",
  },
} as const satisfies ArgDeclarations;

/** What is not said is the device's default. @throws NixdeployError("usage") for what contradicts itself */
export function readPolicy(args: ArgValues<typeof POLICY_ARGS, Readonly<Record<never, never>>>): ActivationPolicy {
  if (args.reboot && (args.mode === "test" || args.mode === "dry-activate")) {
    throw new NixdeployError("usage", `cannot use --reboot with --mode ${args.mode}: it does not reboot`);
  }
  return {
    onUnitFailure: args.onUnitFailure,
    confirmWindowMs: args.confirmWindowMs,
    activationTimeoutMs: args.activationTimeoutMs,
    inhibitors: args.inhibitors,
    ...(args.reboot ? { reboot: true } : {}),
    ...(args.allowUnprovenBoot ? { allowUnprovenBoot: true } : {}),
    ...(args.allowAgentRemoval ? { allowAgentRemoval: true } : {}),
  };
}
