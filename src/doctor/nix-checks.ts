/** Nix on this machine: its daemon, whom and what it trusts, and room for what is to come. */
import { stat, statfs } from "node:fs/promises";
import { userInfo } from "node:os";
import { cleanEnvironment } from "../agent/machine/program-environment.ts";
import { runSmallProgram } from "../agent/machine/small-program.ts";
import { isMissing } from "../agent/machine/system-error.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import type { Clock } from "../runtime.ts";
import type { SeenCache } from "./coordinator-checks.ts";
import { type Check, type Finding, ok, skipped } from "./finding.ts";
import { judgeRoom, judgeTrust, judgeTrustedKeys, type RoomLimits } from "./judge-machine.ts";
import { lookOnce } from "./run-checks.ts";

export type NixLook = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly findCache: () => Promise<SeenCache | null>;
};

const MB = 1_000_000;
const STORE_ROOM: RoomLimits = {
  warningBytes: 2_000 * MB,
  faultBytes: 250 * MB,
  hint: "Make room: nix-collect-garbage --delete-older-than 14d; or give it a larger disk.",
};
/** A kernel and an initrd of NixOS are 50 to 100 MB. */
const BOOT_ROOM: RoomLimits = {
  warningBytes: 150 * MB,
  faultBytes: 30 * MB,
  hint: "Keep fewer generations (boot.loader.systemd-boot.configurationLimit), collect garbage, and switch once more.",
};
const BOOT_DIRECTORIES = ["/boot", "/boot/efi", "/efi"];

export function createNixChecks({ environment, clock, findCache }: NixLook): readonly Check[] {
  const group = "nix" as const;
  const trustedKeys = lookOnce(() => readTrustedKeys(environment, clock));
  const cacheKeys = async () => (await findCache().catch(() => null))?.publicKeys ?? [];
  return [
    { group, name: "daemon", look: async (signal) => [await lookAtDaemon(environment, signal)] },
    {
      group,
      name: "trust",
      look: async (signal) => {
        await using daemon = await connectDaemon({ signal, environment }).catch(() => null);
        if (daemon === null) return [skipped("not without a daemon (above)")];
        const about = { user: userName(), cacheKeys: await cacheKeys(), trustedKeys: await trustedKeys() };
        return [judgeTrust(daemon.trust, about)];
      },
    },
    {
      group,
      name: "keys",
      look: async () => {
        const keys = await trustedKeys();
        return [
          keys === null ? skipped("no `nix` here says what is in nix.conf") : judgeTrustedKeys(await cacheKeys(), keys),
        ];
      },
    },
    { group, name: "store", look: async () => [await lookAtRoom(STORE_DIR, STORE_ROOM)] },
    { group, name: "boot", look: lookAtBoot },
  ];
}

async function lookAtDaemon(environment: NixLook["environment"], signal: AbortSignal): Promise<Finding> {
  await using daemon = await connectDaemon({ signal, environment });
  const version = daemon.nixVersion === null ? "Nix" : `Nix ${daemon.nixVersion}`;
  return ok(`${version} answers (worker protocol ${daemon.protocolVersion})`);
}

function userName(): string {
  return process.getuid?.() === 0 ? "root" : userInfo().username;
}

const NIX_MAX_MS = 5_000;

/** The keys that nix.conf trusts; null where no `nix` says so. */
async function readTrustedKeys(environment: NixLook["environment"], clock: Clock): Promise<readonly string[] | null> {
  const lines: string[] = [];
  const exit = await runSmallProgram({
    command: "nix",
    // `nix config show` in newer ones; all know this name.
    args: ["--extra-experimental-features", "nix-command", "show-config"],
    environment: cleanEnvironment(environment),
    deadlineMs: NIX_MAX_MS,
    clock,
    onLine: async (stream, text) => {
      if (stream === "out") lines.push(text);
    },
  });
  return exit.kind === "exited" && exit.code === 0 ? parseTrustedKeys(lines) : null;
}

/** @param lines of `nix show-config` */
export function parseTrustedKeys(lines: readonly string[]): readonly string[] {
  const line = lines.find((text) => text.startsWith("trusted-public-keys = ")) ?? "";
  return line
    .slice(line.indexOf("=") + 1)
    .split(/\s+/)
    .filter((key) => key !== "");
}

export async function lookAtRoom(place: string, limits: RoomLimits): Promise<Finding> {
  try {
    const { bsize, bavail, blocks } = await statfs(place);
    return judgeRoom(place, { freeBytes: bavail * bsize, totalBytes: blocks * bsize }, limits);
  } catch (error) {
    if (!isMissing(error)) throw error;
    return skipped(`there is no ${place}`);
  }
}

/** Those that are file systems of their own: what a boot loader's installer may fill. */
async function lookAtBoot(): Promise<readonly Finding[]> {
  const { dev: root } = await stat("/");
  const found = await Promise.all(BOOT_DIRECTORIES.map(async (place) => ({ place, dev: await deviceOf(place) })));
  const own = found.filter(
    ({ dev }, index) => dev !== null && dev !== root && found.findIndex((each) => each.dev === dev) === index,
  );
  if (own.length === 0) return [skipped("no boot partition of its own")];
  return await Promise.all(own.map(async ({ place }) => await lookAtRoom(place, BOOT_ROOM)));
}

async function deviceOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).dev;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}
