/**
 * What is done with a closure once it has arrived, while its temporary roots hold: nothing, a profile that names it, or a
 * system that is activated, by the engine over there where there is one, else by the system's own script.
 */
import { NixdeployError } from "../../errors.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import { numbered } from "../ssh/ssh-failure.ts";
import { activateFar, canBeVisited } from "./activate-far.ts";
import type { Copying } from "./copy-host.ts";
import { switchPlainly } from "./plain-switch.ts";
import { isProfileOfRoot, resolveFarProfile, setFarProfile } from "./profile.ts";
import { needRoot, type RootOptions } from "./root.ts";
import { fitsPlatform, keepSentPath, sendBinaryFile } from "./send-binary.ts";
import type { SystemEnd, SystemMethod } from "./system-end.ts";

export type AfterCopy =
  | { readonly kind: "nothing" }
  | { readonly kind: "profile"; readonly storePath: StorePath; readonly profile: string }
  | SystemRequest;

export type SystemRequest = {
  readonly kind: "system";
  readonly storePath: StorePath;
  readonly method: SystemMethod;
  /** A name or an absolute path. */
  readonly profile: string;
  readonly onUnitFailure: "rollback" | "keep";
  readonly confirmWindowMs: number;
  readonly activationTimeoutMs: number;
  readonly allowUnprovenBoot: boolean;
  /** Flags of `local activate`, for the engine over there. */
  readonly policy: readonly string[];
  /** What to send for the engine; null: use what is there. */
  readonly binary: BinaryToSend | null;
};

export type BinaryToSend = {
  readonly executable: string;
  readonly version: string;
  /** What it is a part of, which goes along with the closure; null: it is a file. */
  readonly storePath: StorePath | null;
};

export type AfterCopyDeps = {
  readonly note: (text: string) => void;
  /** Output of what runs over there. */
  readonly onLine: (host: string, text: string) => void;
  readonly askSecret: RootOptions["askSecret"];
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

export type AfterCopyEnd = { readonly profile: string | null; readonly system: SystemEnd | null };

/** Before anything is copied. @throws NixdeployError for what would be refused afterwards */
export function checkAfterCopy(request: AfterCopy, { side, probe }: Copying["receiver"]): void {
  if (request.kind !== "system") return;
  const { binary, method, allowUnprovenBoot } = request;
  if (binary !== null && !fitsPlatform(probe, { platform: process.platform, arch: process.arch })) {
    throw new NixdeployError(
      "refused",
      `cannot send nixdeploy to ${side.name}: it is ${probe.kernel} on ${probe.machine}, and this program is built for ${process.platform} on ${process.arch}`,
      { hint: "Install nixdeploy there, or leave --send-binary out." },
    );
  }
  const hasEngine = binary !== null || probe.nixdeploy !== "";
  if (method === "reboot" && !hasEngine && !allowUnprovenBoot) throw noWayBack(request, side.name);
}

/** @throws NixdeployError when it cannot be done and nothing was touched · the signal's reason */
export async function finishCopy(request: AfterCopy, copying: Copying, deps: AfterCopyDeps): Promise<AfterCopyEnd> {
  const { side, probe } = copying.receiver;
  switch (request.kind) {
    case "nothing":
      return { profile: null, system: null };
    case "profile": {
      const profilePath = resolveFarProfile(request.profile, probe);
      await setFarProfile({ side, probe, profilePath, storePath: request.storePath, ...deps });
      return { profile: profilePath, system: null };
    }
    case "system": {
      const profilePath = resolveFarProfile(request.profile, probe);
      return { profile: profilePath, system: await activate(request, { copying, profilePath, deps }) };
    }
    default:
      return request satisfies never;
  }
}

type Place = { readonly copying: Copying; readonly profilePath: string; readonly deps: AfterCopyDeps };

async function activate(request: SystemRequest, { copying, profilePath, deps }: Place): Promise<SystemEnd> {
  const { side, probe } = copying.receiver;
  const { clock, signal, note } = deps;
  const asRoot =
    isProfileOfRoot(profilePath, probe) && (await needRoot(`activate ${request.storePath}`, { side, probe, ...deps }));
  const common = {
    ...{ side, asRoot, profilePath, clock, note, signal, storePath: request.storePath, method: request.method },
    ...{ confirmWindowMs: request.confirmWindowMs, activationTimeoutMs: request.activationTimeoutMs },
    onLine: (text: string) => deps.onLine(side.name, text),
  };
  const program = await findEngine(request, { copying, asRoot, deps });
  if (program !== null) return await activateFar({ ...common, program, policy: request.policy });
  if (request.method === "reboot" && !request.allowUnprovenBoot) throw noWayBack(request, side.name);
  if (request.method !== "dry-activate") {
    note(
      `${side.name}: by its switch-to-configuration alone; --send-binary brings the engine, with its checks and trial boots`,
    );
  }
  // Whatever the profile: the system's own script takes root.
  const isSudo = asRoot || (await needRoot(`activate ${request.storePath}`, { side, probe, ...deps }));
  return await switchPlainly({ ...common, asRoot: isSudo, onUnitFailure: request.onUnitFailure });
}

type EnginePlace = { readonly copying: Copying; readonly asRoot: boolean; readonly deps: AfterCopyDeps };

/** The program over there; null: there is none that will do. */
async function findEngine(request: SystemRequest, { copying, asRoot, deps }: EnginePlace): Promise<string | null> {
  const { side, probe } = copying.receiver;
  const { note, signal } = deps;
  if (request.binary === null) {
    if (probe.nixdeploy === "") return null;
    if (await canBeVisited({ side, program: "nixdeploy", asRoot }, signal)) return "nixdeploy";
    const whose = asRoot ? "root cannot use it there" : "it is too old to be used from here";
    note(`${side.name}: ${probe.nixdeploy} is there, but ${whose}; --send-binary sends ours`);
    return null;
  }
  const { executable, version, storePath } = request.binary;
  const onSending = () => note(`${side.name}: sending nixdeploy ${version}`);
  if (storePath !== null) await keepSentPath({ side, storePath, asRoot, signal });
  const program =
    storePath === null ? await sendBinaryFile({ side, executable, version, asRoot, onSending, signal }) : executable;
  if (await canBeVisited({ side, program, asRoot }, signal)) return program;
  throw new NixdeployError("refused", `cannot use the nixdeploy that was sent to ${side.name}: it does not run there`, {
    details: numbered([
      `What does it say? ssh ${side.name} ${program} --version`,
      "NixOS runs no programs built for other systems: use a nixdeploy from its package, which is then sent as a store path",
      "Leave --send-binary out: then the system's own switch-to-configuration is used",
    ]),
  });
}

function noWayBack({ storePath }: SystemRequest, name: string): NixdeployError {
  return new NixdeployError(
    "refused",
    `cannot reboot ${name} into ${storePath}: nobody over there could go back if it does not come up`,
    {
      details: numbered([
        "Let the engine do it, which tries it for one boot where the boot loader can: --send-binary",
        "Activate it now, and prove it before a reboot: --switch",
        "Reboot all the same: --allow-unproven-boot",
      ]),
    },
  );
}
