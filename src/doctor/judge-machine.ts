/** What is seen of a machine with Nix, of an agent and of a coordinator's data directory, judged. Pure. */
import type { DaemonTrust } from "../nix/daemon/handshake.ts";
import { formatBytes, formatCount, formatSpan } from "../quantity.ts";
import { type Finding, fault, ok, warning } from "./finding.ts";

export type Room = { readonly freeBytes: number; readonly totalBytes: number };
export type RoomLimits = { readonly warningBytes: number; readonly faultBytes: number; readonly hint: string };

export function judgeRoom(place: string, { freeBytes, totalBytes }: Room, limits: RoomLimits): Finding {
  const text = `${place}: ${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`;
  if (freeBytes < limits.faultBytes) return fault(`${text}, too little`, limits.hint);
  return freeBytes < limits.warningBytes ? warning(text, limits.hint) : ok(text);
}

/** Whether the daemon takes what is signed by our cache's key, from this user. */
export function judgeTrust(
  trust: DaemonTrust,
  about: {
    readonly user: string;
    /** Keys of our cache, `name:base64`; none where they are not known. */
    readonly cacheKeys: readonly string[];
    /** Of nix.conf; null where it could not be asked. */
    readonly trustedKeys: readonly string[] | null;
  },
): Finding {
  const { user, cacheKeys, trustedKeys } = about;
  if (trust === "trusted") return ok(`${user} is a trusted user of the Nix daemon`);
  if (trust === "unknown") return ok(`this Nix does not say whether ${user} is a trusted user`);
  const isKeyTrusted = trustedKeys !== null && cacheKeys.some((key) => trustedKeys.includes(key));
  if (isKeyTrusted) return ok(`${user} is no trusted user, and need not be: nix.conf has the cache's key`);
  return warning(
    `${user} is no trusted user: the daemon takes only what a key of nix.conf has signed from an agent or \`nix copy\` of this user`,
    "Put the cache's key (`nixdeploy cache show`) into nix.conf as extra-trusted-public-keys, or the user into trusted-users, and restart the daemon.",
  );
}

export function judgeTrustedKeys(cacheKeys: readonly string[], trustedKeys: readonly string[]): Finding {
  const nameOf = (key: string) => key.slice(0, key.indexOf(":"));
  const [wanted] = cacheKeys;
  if (wanted === undefined) return ok(`nix.conf trusts ${trustedKeys.map(nameOf).join(", ") || "no key"}`);
  if (cacheKeys.some((key) => trustedKeys.includes(key)))
    return ok(`nix.conf trusts the cache's key ${nameOf(wanted)}`);
  const sameName = trustedKeys.find((key) => cacheKeys.some((cacheKey) => nameOf(cacheKey) === nameOf(key)));
  if (sameName !== undefined) {
    return warning(
      `nix.conf has another key by the name of ${nameOf(sameName)} than the cache`,
      `Replace it with ${wanted}: the cache was made anew, or the line is from another coordinator.`,
    );
  }
  return ok(`nix.conf does not have the cache's key, which only vanilla Nix and agents without trust need (${wanted})`);
}

export function judgePins(pinned: readonly string[], cacheKeys: readonly string[]): Finding {
  if (pinned.length === 0) {
    return warning(
      "no cache key is pinned: the agent takes nothing but what --trusted-public-key of its own command names",
      "Unless it is given there: remove the agent's enrolment.json and restart it, to pin the present keys.",
    );
  }
  if (cacheKeys.length === 0 || pinned.some((key) => cacheKeys.includes(key))) return ok(`pinned: ${pinned.join(" ")}`);
  return fault(
    `what is pinned (${pinned.join(" ")}) is not what the cache signs with now (${cacheKeys.join(" ")})`,
    "If the key was rotated, the agent follows at its next contact. If you did not rotate it, somebody else did: compare `nixdeploy cache show`.",
  );
}

/** The last `nixdeploy backup`, as it noted itself. */
export type SeenBackup = { readonly file: string; readonly atMs: number; readonly isThere: boolean };
const BACKUP_OLD_MS = 2 * 24 * 3_600_000;

export function judgeBackup(backup: SeenBackup | null, nowMs: number): Finding {
  if (backup === null) {
    return warning(
      "no backup was ever made with `nixdeploy backup`",
      "Make one each night: docs/operating.md, Backup.",
    );
  }
  const text = `the last one is ${formatSpan(Math.max(0, nowMs - backup.atMs))} old (${backup.file})`;
  if (nowMs - backup.atMs > BACKUP_OLD_MS) return warning(text, "Make one each night: docs/operating.md, Backup.");
  if (!backup.isThere)
    return warning(`${text}, and not there any more`, "Fine when something moves them away; else look where they go.");
  return ok(text);
}

const OPEN_FILES_MIN = 4_096;
/** One for each agent, and as many again for transfers, files and followers. */
const OPEN_FILES_PER_AGENT = 2;

export function judgeOpenFiles(limit: number, agents: number): Finding {
  const wanted = Math.max(OPEN_FILES_MIN, agents * OPEN_FILES_PER_AGENT);
  const text = `the coordinator may open ${limit} files, for ${formatCount(agents, "agent")} and all transfers`;
  if (limit >= wanted) return ok(text);
  const hint = "LimitNOFILE=65536 in its unit (docs/install.md), and restart it.";
  return limit <= agents ? fault(text, hint) : warning(text, hint);
}

const OTHERS = 0o077;

/** @param mode as stat says it */
export function judgeSecrecy(path: string, mode: number): Finding {
  if ((mode & OTHERS) === 0) return ok(`${path} is for its owner alone`);
  return fault(`others may look into ${path} (mode ${(mode & 0o777).toString(8)})`, `Run: chmod go= ${path}`);
}
