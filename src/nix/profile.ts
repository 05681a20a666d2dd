/**
 * The names of profiles and of their generations.
 *
 * A profile is a symlink `<profile>` to `<profile>-<generation>-link`, which is a symlink to a store path. Nothing is
 * read or written here. Source: Nix `src/libstore/profiles.cc`; our rule for bare names: README, "agent".
 */
import { NixParseError, quoteExcerpt } from "./parse-error.ts";

const PROFILE_NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;
const PROFILE_PATH_LENGTH_MAX = 4096;
const GENERATION_LINK_PATTERN = /^(.+)-([1-9][0-9]{0,15})-link$/s;
/** Looks behind, so that a long row of slashes elsewhere costs one look each, not one for all behind it. */
const TRAILING_SLASHES = /(?<!\/)\/+$/;
const ROOT_PROFILES_DIR = "/nix/var/nix/profiles";

export type GenerationLink = {
  /** The file name of the profile, for example `system`. */
  readonly profile: string;
  /** 1 and up. */
  readonly generation: number;
};

/** `system-42-link` → `{ profile: "system", generation: 42 }`; null for the name of anything else. */
export function parseGenerationLink(fileName: string): GenerationLink | null {
  const [, profile, digits] = GENERATION_LINK_PATTERN.exec(fileName) ?? [];
  const generation = Number(digits);
  if (profile === undefined || profile.includes("/") || !Number.isSafeInteger(generation)) {
    return null;
  }
  return { profile, generation };
}

export function formatGenerationLink(link: GenerationLink): string {
  return `${link.profile}-${link.generation}-link`;
}

/** Whether /run/current-system comes from this profile: `system`, or one of `nixos-rebuild --profile-name`. */
export function isSystemProfile(path: string): boolean {
  return path === `${ROOT_PROFILES_DIR}/system` || path.startsWith(`${ROOT_PROFILES_DIR}/system-profiles/`);
}

export type ResolveProfileOptions = {
  /** A name, an absolute path, or null for the default: `system` for root, `home-manager` for anyone else. */
  readonly profile: string | null;
  readonly isRoot: boolean;
  /** Absolute; used only for names, when not root and without a usable `stateHome`. */
  readonly home: string;
  /** `XDG_STATE_HOME`; null, empty or relative means `~/.local/state`, as the XDG specification has it. */
  readonly stateHome: string | null;
};

/**
 * The absolute path of a profile's symlink.
 *
 * A name means `/nix/var/nix/profiles/NAME` for root and `${XDG_STATE_HOME:-~/.local/state}/nix/profiles/NAME`
 * otherwise.
 * @throws NixParseError for a name or path that cannot be a profile
 */
export function resolveProfilePath(options: ResolveProfileOptions): string {
  const profile = options.profile ?? (options.isRoot ? "system" : "home-manager");
  if (parseGenerationLink(profile.slice(profile.lastIndexOf("/") + 1)) !== null) {
    throw new NixParseError("profile", `${quoteExcerpt(profile)} names a generation, not a profile`);
  }
  if (profile.startsWith("/")) {
    return parseProfilePath(profile);
  }
  if (!PROFILE_NAME_PATTERN.test(profile)) {
    throw new NixParseError("profile", `expected a name or an absolute path, got ${quoteExcerpt(profile)}`);
  }
  return `${options.isRoot ? ROOT_PROFILES_DIR : userProfilesDir(options)}/${profile}`;
}

function userProfilesDir({ home, stateHome }: ResolveProfileOptions): string {
  if (stateHome?.startsWith("/")) {
    return `${stateHome.replace(TRAILING_SLASHES, "")}/nix/profiles`;
  }
  if (!home.startsWith("/")) {
    throw new NixParseError("profile", `the home directory is not an absolute path: ${quoteExcerpt(home)}`);
  }
  return `${home.replace(TRAILING_SLASHES, "")}/.local/state/nix/profiles`;
}

function parseProfilePath(path: string): string {
  const parts = path.slice(1).split("/");
  const isPlain = parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!isPlain || path.includes("\0") || path.length > PROFILE_PATH_LENGTH_MAX) {
    throw new NixParseError("profile", `not a plain absolute path: ${quoteExcerpt(path)}`);
  }
  return path;
}
