/** The flags that say how an activation is done and judged: those of `activate`, and of `local` at the machine itself. */
import { type ActivationPolicy, MODES } from "../deployment.ts";
import type { ArgDeclarations, ArgValues } from "./args.ts";

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
} as const satisfies ArgDeclarations;

/** What is not said is the device's default. */
export function readPolicy(args: ArgValues<typeof POLICY_ARGS, Readonly<Record<never, never>>>): ActivationPolicy {
  return {
    onUnitFailure: args.onUnitFailure,
    confirmWindowMs: args.confirmWindowMs,
    activationTimeoutMs: args.activationTimeoutMs,
  };
}
