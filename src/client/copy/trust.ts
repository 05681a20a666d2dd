/**
 * How a machine comes to accept what somebody signed: its Nix daemon trusts the key already; or the key is added to its
 * nix.conf, after asking; or the daemon trusts who asks, root or one of its `trusted-users`, so that our own check is
 * enough; or, where sudo asks nothing, we ask as root. Otherwise the daemon decides, and the error has the line to add.
 *
 * Only public keys are ever written here, and only into a nix.conf that is a plain file: a link is somebody's
 * configuration (NixOS), which is theirs to change.
 */
import { NixdeployError } from "../../errors.ts";
import { formatKeyFingerprint } from "../../key-fingerprint.ts";
import { DaemonError } from "../../nix/daemon/daemon-error.ts";
import type { DaemonTrust } from "../../nix/daemon/handshake.ts";
import type { PathInfo } from "../../nix/path-info.ts";
import { createSignatureVerifier } from "../../nix/signature.ts";
import { formatPublicKey, type PublicKey, parsePublicKey } from "../../nix/signing-key.ts";
import { lastLine, numbered } from "../ssh/ssh-failure.ts";
import type { Probe } from "./probe.ts";
import { becomeRoot, type RootOptions } from "./root.ts";
import type { Side } from "./side.ts";

export type Acceptance =
  /** The daemon checks the signatures itself. */
  | "by-key"
  /** It takes our word. */
  | "by-trust"
  /** It would take root's. */
  | "as-root"
  /** It may say no. */
  | "uncertain";

export type TrustOptions = {
  readonly side: Side;
  readonly probe: Probe;
  /** What is signed with; null: nothing is signed. */
  readonly key: PublicKey | null;
  readonly trust: DaemonTrust;
  /** Null: nobody can be asked. */
  readonly confirm: (question: string) => Promise<boolean | null>;
  readonly askSecret: RootOptions["askSecret"];
  readonly note: (text: string) => void;
  readonly signal: AbortSignal;
};

/** Whether the daemon takes what we say without a signature. Daemons before 1.35 do not tell: then root's does. */
export function isTrusted(trust: DaemonTrust, { uid }: Pick<Probe, "uid">): boolean {
  return trust === "trusted" || (trust === "unknown" && uid === 0);
}

/** Those that no key vouches for which the machine trusts already; what is named by its contents needs none. Pure. */
export function listUnsigned(missing: readonly PathInfo[], { trustedKeys }: Pick<Probe, "trustedKeys">): PathInfo[] {
  const verifier = createSignatureVerifier(parseKeys(trustedKeys));
  return missing.filter((info) => info.contentAddress === null && verifier.verify(info) === null);
}

/** Lenient: what is no key signs nothing. Pure. */
export function parseKeys(text: string): PublicKey[] {
  return text
    .split(/\s+/)
    .filter((word) => word !== "")
    .flatMap((word) => {
      try {
        return [parsePublicKey(word)];
      } catch {
        return [];
      }
    });
}

/** How the key could get into nix.conf; null: it cannot. Pure. */
export function planKeyEntry(probe: Probe): { readonly asRoot: boolean } | null {
  // NixOS may also lay its files over /etc, where they are no links.
  if (probe.confIsManaged || probe.isNixos) return null;
  if (probe.confIsWritable || probe.uid === 0) return { asRoot: false };
  return probe.sudo === "none" ? null : { asRoot: true };
}

/** The line that nix.conf lacks. */
export function trustLine(key: PublicKey): string {
  return `extra-trusted-public-keys = ${formatPublicKey(key)}`;
}

export async function arrangeTrust(options: TrustOptions): Promise<Acceptance> {
  const { probe, key, trust, side, note } = options;
  if (key !== null) {
    if (probe.trustedKeys.split(/\s+/).includes(formatPublicKey(key))) return "by-key";
    const entry = planKeyEntry(probe);
    const isWanted = entry !== null && (await offerKey(key, options));
    if (isWanted && (!entry.asRoot || (await becomeRoot(options)) === "sudo")) {
      // A daemon that could not be restarted goes by what it read when it started; one that root runs reads it now.
      return (await enterKey(key, entry, options)) || !entry.asRoot ? "by-key" : "as-root";
    }
  }
  if (isTrusted(trust, probe)) {
    if (key !== null)
      note(`${side.name}: its nix.conf does not have the key ${key.name}; it takes ${probe.user}'s word`);
    return "by-trust";
  }
  // A daemon that does not tell may trust this user: nobody is bothered before it has said no.
  if (trust === "unknown" && probe.sudo !== "free") return "uncertain";
  return (await becomeRoot(options)) === "sudo" ? "as-root" : "uncertain";
}

async function offerKey(key: PublicKey, { side, probe, confirm }: TrustOptions): Promise<boolean> {
  const question = `Trust the key ${key.name} (${formatKeyFingerprint(key.bytes)}) on ${side.name}? It goes into ${probe.conf}`;
  return (await confirm(question)) === true;
}

/** $1 nix.conf, $2 the line. Several may do it at once: each has a file of its own, and looks again when it is done. */
export const ENTER_KEY_SCRIPT = `set -eu
conf=$1 line=$2 new= tries=5
mkdir -p "$(dirname "$conf")"
trap 'rm -f -- "$new"' EXIT
exec 9< "$(dirname "$conf")"
flock 9 2>/dev/null || :
until grep -qxF -- "$line" "$conf" 2>/dev/null; do
  if [ "$tries" = 0 ]; then echo "somebody else changes it" >&2; exit 1; fi
  tries=$((tries - 1))
  new=$(mktemp "$conf.XXXXXX")
  if [ -e "$conf" ]; then cp -p "$conf" "$new"; else chmod 644 "$new"; fi
  printf '\\n# added by nixdeploy copy\\n%s\\n' "$line" >> "$new"
  sync "$new" 2>/dev/null || :
  mv "$new" "$conf"
done
exec 9<&-
if [ "$(id -u)" = 0 ]; then
  if command -v systemctl >/dev/null 2>&1 && systemctl is-active --quiet nix-daemon.service; then
    systemctl restart nix-daemon.service && echo restarted
  elif [ "$(uname -s)" = Darwin ]; then
    launchctl kickstart -k system/org.nixos.nix-daemon && echo restarted
  fi
fi
`;

/** @returns whether the daemon was restarted */
async function enterKey(key: PublicKey, entry: { readonly asRoot: boolean }, options: TrustOptions): Promise<boolean> {
  const { side, probe, note, signal } = options;
  const words = [probe.conf, trustLine(key)];
  const result = await side.run({ text: ENTER_KEY_SCRIPT, words, asRoot: entry.asRoot }, signal);
  if (result.code !== 0) {
    const why = lastLine(result.stderr) || `the script ended with ${result.code ?? "a signal"}`;
    throw new NixdeployError("host", `cannot trust the key ${key.name} on ${side.name}: ${why}`, {
      details: numbered([`Add this line to ${probe.conf} there: ${trustLine(key)}`, "Restart its nix-daemon"]),
    });
  }
  const isRestarted = result.stdout.includes("restarted");
  note(`${side.name}: trusts the key ${key.name} from now on${isRestarted ? "; its nix-daemon was restarted" : ""}`);
  return isRestarted;
}

/** The error of an import for the user: where the daemon misses a signature, with what helps. */
export function explainRefusal(
  error: unknown,
  options: { readonly info: PathInfo; readonly key: PublicKey | null; readonly side: Side; readonly probe: Probe },
): unknown {
  if (!(error instanceof DaemonError) || !error.isSignatureRefusal) return error;
  const { info, key, side, probe } = options;
  const login = side.isLocal ? "Do it as root" : `Log in as root, or as a user who may use sudo without a password`;
  const users = `Make ${probe.user} one of the \`trusted-users\` in its nix.conf, which makes him as mighty as root`;
  if (key === null) {
    return new NixdeployError(
      "refused",
      `cannot copy ${info.storePath}: the Nix daemon of ${side.name} takes only what a key signed that it trusts`,
      { details: numbered(["Leave --no-sign out", login, users]), cause: error },
    );
  }
  const line = probe.isNixos
    ? `Add the key to its configuration: nix.settings.trusted-public-keys = [ "${formatPublicKey(key)}" ];`
    : `Add this line to ${probe.conf} there: ${trustLine(key)}`;
  return new NixdeployError(
    "refused",
    `cannot copy ${info.storePath}: the Nix daemon of ${side.name} does not trust the key ${key.name}, and not ${probe.user} either`,
    {
      details: numbered([
        line,
        "If the key is in that file already, restart the nix-daemon there",
        ...(planKeyEntry(probe) === null ? [] : ["Or let it be added: --yes"]),
        login,
        users,
      ]),
      cause: error,
    },
  );
}
