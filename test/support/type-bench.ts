/**
 * Versions of each type other than NixOS on a device: how they are built, who keeps them, and what is really there
 * afterwards, down to every link in a home. Changes nothing but what `reset` is for.
 */
import { dirname, join } from "node:path";
import type { Builder, Fault } from "./builder.ts";
import type { Device } from "./device.ts";

export type TypeName = "home-manager" | "darwin" | "plain";

export type Version = { readonly path: string; readonly version: string; readonly protocol: 0 | 1 };

/** What the places that name a version name, and all that its script has linked. */
export type TypeSides = {
  readonly profile: string | null;
  /** The root `current-home`, or /run/current-system; of a plain profile the profile again. */
  readonly live: string | null;
  /** One line for each link or file that a script makes. */
  readonly files: readonly string[];
};

export type TypeBench = {
  readonly type: TypeName;
  /** Who runs the agent; undefined for root. */
  readonly user: string | undefined;
  readonly profilePath: string;
  readonly stateDirectory: string;
  build(options: {
    readonly version: string;
    readonly protocol?: 0 | 1;
    readonly faults?: readonly Fault[];
  }): Promise<Version>;
  sides(): Promise<TypeSides>;
  /** What `sides` must say of a version; of null, of none. */
  expected(version: Version | null): Promise<TypeSides>;
  /** Makes it live and permanent by hand; its closure must be there. */
  reset(version: Version): Promise<void>;
};

const NAME = "app";

export function createTypeBench(options: {
  readonly type: TypeName;
  readonly builder: Builder;
  readonly device: Device;
  readonly agent: string;
  readonly user?: string;
}): TypeBench {
  const { type, builder, device, agent, user } = options;
  const environment = user === undefined ? device.environment : device.environmentOf(user);
  const stateHome = environment["XDG_STATE_HOME"] ?? "";
  const who = user === undefined ? {} : { user };
  const profilePath =
    type === "darwin"
      ? "/nix/var/nix/profiles/system"
      : join(stateHome, "nix/profiles", type === "plain" ? "tools" : "home-manager");
  const currentHome = join(stateHome, "home-manager/gcroots/current-home");
  const lines = async (script: string) =>
    (await device.run(["/bin/sh", "-euc", script], who)).split("\n").filter((line) => line !== "");

  const build: TypeBench["build"] = async ({ version, protocol = 1, faults = [] }) => {
    const base = { name: NAME, version };
    if (type === "plain")
      return { path: await builder.build("profile", { ...base, hook: { faults } }), version, protocol };
    const path =
      type === "darwin"
        ? await builder.build("darwin", { ...base, faults })
        : await builder.build("home-manager", { ...base, protocol, faults });
    return { path, version, protocol };
  };
  const sides = async (): Promise<TypeSides> => {
    const profile = await device.link(profilePath);
    const live =
      type === "plain" ? profile : await device.link(type === "darwin" ? "/run/current-system" : currentHome);
    return { profile, live, files: await lines(LISTS[type]) };
  };
  const expected = async (version: Version | null): Promise<TypeSides> => {
    if (version === null) return { profile: null, live: null, files: [] };
    const { path } = version;
    return { profile: path, live: path, files: await expectFiles(type, version, builder) };
  };
  const reset = async ({ path, protocol }: Version) => {
    await device.run(["mkdir", "-p", dirname(profilePath)], who);
    if (type === "home-manager") {
      await device.run([`${path}/activate`, ...(protocol === 1 ? ["--driver-version", "1"] : [])], who);
    }
    await device.run(["nix-env", "--profile", profilePath, "--set", path], who);
    if (type === "darwin") await device.run([`${path}/activate`], who);
    if (type === "plain") {
      const others = await lines(LISTS.plain);
      for (const line of others) await device.run(["/bin/sh", "-c", `rm "$HOME/${line.split(" ")[0]}"`], who);
      const env = { NIXDEPLOY_NEW_PATH: path, NIXDEPLOY_OLD_PATH: "", NIXDEPLOY_PROFILE: profilePath };
      await device.run([`${path}/share/nixdeploy/activate`], { ...who, env });
    }
  };
  const stateDirectory =
    user === undefined ? `/var/lib/nixdeploy/agents/${agent}` : join(stateHome, "nixdeploy/agents", agent);
  return { type, user, profilePath, stateDirectory, build, sides, expected, reset };
}

/** Shell text that prints `TypeSides.files`, sorted. Also what is left over: a root of a script at work, directories. */
const LISTS: Readonly<Record<TypeName, string>> = {
  "home-manager": `cd "$HOME"
    { find . -type l -lname '/nix/store/*-home-manager-files/*' -printf '%P -> %l\\n'
      find . -path './.config/*' -type d -empty -printf 'empty %P\\n'
      find . -path '*/gcroots/new-home' -printf '%P\\n'
    } | LC_ALL=C sort`,
  darwin: `[ -d /nix/var/mac ] || exit 0; cd /nix/var/mac
    { find etc -mindepth 1 -type l ! -name static -printf '%p -> %l\\n'
      for file in etc/*; do [ -e "$file" ] || echo "dangling $file"; done
      readlink etc/static
      for file in Library/LaunchDaemons/* loaded/*; do [ ! -e "$file" ] || echo "$file: $(cat "$file")"; done
    } | LC_ALL=C sort`,
  plain: `cd "$HOME"; find . -maxdepth 1 -type l -name '.${NAME}-*' -printf '%P -> %l\\n' | LC_ALL=C sort`,
};

async function expectFiles(type: TypeName, { path, version }: Version, builder: Builder): Promise<string[]> {
  if (type === "plain") return [`.${NAME}-${version} -> ${path}/share/version`];
  if (type === "home-manager") {
    const script = `source=$(readlink -e ${path}/home-files); find "$source" -type l -printf "%P -> $source/%P\\n" | LC_ALL=C sort`;
    return (await builder.run(["/bin/sh", "-euc", script])).split("\n");
  }
  const etc = await builder.run(["readlink", "-e", `${path}/etc`]);
  const labels = [`org.nixos.${NAME}`, `org.nixos.${NAME}-${version}`];
  const daemons = labels.flatMap((label) =>
    [`Library/LaunchDaemons/${label}.plist`, `loaded/${label}`].map((file) => `${file}: ${label} ${version}`),
  );
  const files = [`${NAME}.conf`, `${NAME}-${version}.conf`].map(
    (file) => `etc/${file} -> /nix/var/mac/etc/static/${file}`,
  );
  return [etc, ...daemons, ...files].sort();
}
