/** The flags of `copy` that say what is done with the closure over there: a profile, or the activation of a system. */
import type { AfterCopy, BinaryToSend } from "../client/copy/after-copy.ts";
import { SYSTEM_METHODS, type SystemMethod } from "../client/copy/system-end.ts";
import { ACTIVATION_TIMEOUT_DEFAULT_MS, CONFIRM_WINDOW_DEFAULT_MS } from "../deployment.ts";
import { NixdeployError } from "../errors.ts";
import { type StorePath, storePathContaining } from "../nix/store-path.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import type { ArgDeclarations, ArgValues } from "./command-line/args.ts";
import { parseProfile } from "./local-args.ts";
import { POLICY_ARGS } from "./policy-args.ts";

const { onUnitFailure, confirmWindowMs, activationTimeoutMs, allowUnprovenBoot } = POLICY_ARGS;

export const AFTER_ARGS = {
  profile: {
    type: "string",
    valueHint: "NAME|PATH",
    parse: parseProfile,
    description: "Make this profile name it, over there (with --from: here)",
  },
  switch: { type: "boolean", description: "Activate the system: it must prove itself, then it is made the default" },
  boot: { type: "boolean", description: "Make the system the default for the next boot" },
  test: { type: "boolean", description: "Activate the system until the next reboot; no profile is moved" },
  dryActivate: { type: "boolean", description: "Let the system say what it would do; no profile is moved" },
  reboot: { type: "boolean", description: "Reboot into the system" },
  systemName: {
    type: "string",
    valueHint: "NAME",
    parse: parseProfile,
    description: "The system's profile is system-profiles/NAME instead of system",
  },
  sendBinary: {
    type: "boolean",
    description: "Send this nixdeploy along, so that its safe activation is used where none is installed",
  },
  ...{ onUnitFailure, confirmWindowMs, activationTimeoutMs, allowUnprovenBoot },
} as const satisfies ArgDeclarations;
type AfterValues = ArgValues<typeof AFTER_ARGS, Readonly<Record<never, never>>>;

const PROFILES = "/nix/var/nix/profiles";

/** @throws NixdeployError("usage") for what contradicts itself */
export function readAfterCopy(
  args: AfterValues,
  copied: { readonly direction: "to" | "from"; readonly paths: readonly StorePath[] },
): AfterCopy {
  const method = readMethod(args);
  if (method === null) {
    refuseAlone(args);
    const storePath = args.profile === undefined ? null : onlyPath("--profile", copied.paths);
    return args.profile === undefined || storePath === null
      ? { kind: "nothing" }
      : { kind: "profile", storePath, profile: args.profile };
  }
  if (copied.direction === "from") {
    throw new NixdeployError("usage", `cannot use --${method} with --from: it is for the other machine`, {
      hint: "Copy it first, then activate it here: nixdeploy local activate PATH",
    });
  }
  if (args.profile !== undefined && args.systemName !== undefined) {
    throw new NixdeployError(
      "usage",
      "cannot use --profile and --system-name together: both name the system's profile",
    );
  }
  const named = args.systemName === undefined ? `${PROFILES}/system` : `${PROFILES}/system-profiles/${args.systemName}`;
  return {
    ...{ kind: "system", storePath: onlyPath(`--${method}`, copied.paths), method, profile: args.profile ?? named },
    onUnitFailure: args.onUnitFailure ?? "rollback",
    confirmWindowMs: args.confirmWindowMs ?? CONFIRM_WINDOW_DEFAULT_MS,
    activationTimeoutMs: args.activationTimeoutMs ?? ACTIVATION_TIMEOUT_DEFAULT_MS,
    allowUnprovenBoot: args.allowUnprovenBoot,
    policy: listPolicyFlags(args),
    binary: args.sendBinary ? ownBinary() : null,
  };
}

function readMethod(args: AfterValues): SystemMethod | null {
  const { switch: isSwitch, boot, test, dryActivate, reboot } = args;
  const given = { switch: isSwitch, boot, test, "dry-activate": dryActivate, reboot };
  const [method, ...others] = SYSTEM_METHODS.filter((each) => given[each]);
  const [other] = others;
  if (other === undefined) return method ?? null;
  throw new NixdeployError("usage", `cannot use --${method} and --${other} together: give one of them`);
}

/** Flags that only say how a system is activated. */
function refuseAlone(args: AfterValues): void {
  const given = {
    "system-name": args.systemName !== undefined,
    "send-binary": args.sendBinary,
    "on-unit-failure": args.onUnitFailure !== undefined,
    "confirm-window": args.confirmWindowMs !== undefined,
    "activation-timeout": args.activationTimeoutMs !== undefined,
    "allow-unproven-boot": args.allowUnprovenBoot,
  };
  const [alone] = Object.entries(given).flatMap(([flag, isGiven]) => (isGiven ? [flag] : []));
  if (alone === undefined) return;
  throw new NixdeployError("usage", `cannot use --${alone} alone: it says how a system is activated`, {
    hint: "Add one of --switch, --boot, --test, --dry-activate and --reboot.",
  });
}

function onlyPath(flag: string, paths: readonly StorePath[]): StorePath {
  const [path, ...others] = paths;
  if (path !== undefined && others.length === 0) return path;
  throw new NixdeployError("usage", `cannot use ${flag} with ${paths.length} paths: give one`);
}

function listPolicyFlags(args: AfterValues): readonly string[] {
  const seconds = (ms: number) => `${Math.max(1, Math.ceil(ms / 1_000))}s`;
  return [
    ...(args.onUnitFailure === undefined ? [] : ["--on-unit-failure", args.onUnitFailure]),
    ...(args.confirmWindowMs === undefined ? [] : ["--confirm-window", seconds(args.confirmWindowMs)]),
    ...(args.activationTimeoutMs === undefined ? [] : ["--activation-timeout", seconds(args.activationTimeoutMs)]),
    ...(args.allowUnprovenBoot ? ["--allow-unproven-boot"] : []),
  ];
}

/** @throws NixdeployError("usage") when this is no program that could be sent */
function ownBinary(): BinaryToSend {
  if (!Bun.main.startsWith("/$bunfs/")) {
    throw new NixdeployError("usage", "cannot use --send-binary: this nixdeploy runs from its source code", {
      hint: "Build it first: npm run build.",
    });
  }
  const executable = process.execPath;
  return { executable, version: NIXDEPLOY_VERSION, storePath: storePathContaining(executable) };
}
