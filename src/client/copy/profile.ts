/** A profile of the machine where the closure has arrived: which one is meant, and making it name a path. */
import { NixdeployError } from "../../errors.ts";
import { NixParseError } from "../../nix/parse-error.ts";
import { resolveProfilePath } from "../../nix/profile.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { lastLine, numbered } from "../ssh/ssh-failure.ts";
import type { Probe } from "./probe.ts";
import { needRoot, type RootOptions } from "./root.ts";
import type { Side } from "./side.ts";

const PROFILES = "/nix/var/nix/profiles/";
const NOT_A_SYSTEM = 64;

const SET_PROFILE_SCRIPT = `set -eu
if [ "$1" = /nix/var/nix/profiles/system ] && ! [ -e "$2/nixos-version" ] && ! [ -e "$2/darwin-version" ] && ! [ -e "$2/darwin-version.json" ]; then
  exit ${NOT_A_SYSTEM}
fi
mkdir -p "$(dirname "$1")"
nix-env --profile "$1" --set "$2" >&2
`;

/**
 * A name is `/nix/var/nix/profiles/NAME` for root, the user's own profile for everybody else; a path is that path.
 * @throws NixdeployError("usage")
 */
export function resolveFarProfile(profile: string, probe: Pick<Probe, "uid" | "home" | "stateHome">): string {
  try {
    const stateHome = probe.stateHome === "" ? null : probe.stateHome;
    return resolveProfilePath({ profile, isRoot: probe.uid === 0, home: probe.home, stateHome });
  } catch (error) {
    if (!(error instanceof NixParseError)) throw error;
    throw new NixdeployError("usage", `cannot set the profile: ${error.reason}`, { cause: error });
  }
}

/** Whether a profile belongs to root. Pure. */
export function isProfileOfRoot(path: string, { user }: Pick<Probe, "user">): boolean {
  return path.startsWith(PROFILES) && !path.startsWith(`${PROFILES}per-user/${user}/`);
}

/** @throws NixdeployError */
export async function setFarProfile(options: {
  readonly side: Side;
  readonly probe: Probe;
  /** Absolute. */
  readonly profilePath: string;
  readonly storePath: StorePath;
  readonly askSecret: RootOptions["askSecret"];
  readonly signal: AbortSignal;
}): Promise<void> {
  const { side, probe, profilePath, storePath, signal } = options;
  const asRoot = isProfileOfRoot(profilePath, probe) && (await needRoot(`set the profile ${profilePath}`, options));
  const result = await side.run({ text: SET_PROFILE_SCRIPT, words: [profilePath, storePath], asRoot }, signal);
  if (result.code === 0) return;
  if (result.code === NOT_A_SYSTEM) {
    throw new NixdeployError(
      "refused",
      `cannot set the profile ${profilePath} on ${side.name}: it takes only NixOS or nix-darwin, and ${storePath} is neither`,
    );
  }
  const why = lastLine(result.stderr) || `nix-env ended with ${result.code ?? "a signal"}`;
  throw new NixdeployError("host", `cannot set the profile ${profilePath} on ${side.name}: ${why}`, {
    details: numbered([
      `Try there by hand: nix-env --profile ${profilePath} --set ${storePath}`,
      "The closure is there already: only this step is left",
    ]),
  });
}
