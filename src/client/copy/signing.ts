/**
 * The key that signs what `copy` sends: made at the first need, where the closure is, and it stays there. On this machine a
 * file of ours, on another one a file of its own Nix, in the same place and form:
 *
 *   /var/lib/nixdeploy/copy/signing-key for root, $XDG_STATE_HOME/nixdeploy/copy/signing-key else   NAME:BASE64, mode 0600
 */
import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { describeError, NixdeployError } from "../../errors.ts";
import { NixParseError } from "../../nix/parse-error.ts";
import {
  formatSecretKey,
  type PublicKey,
  parsePublicKey,
  parseSecretKey,
  type SecretKey,
  secretKeyFromSeed,
} from "../../nix/signing-key.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Random } from "../../runtime.ts";
import { lastLine, numbered } from "../ssh/ssh-failure.ts";
import type { Side } from "./side.ts";

const OTHERS_BITS = 0o077;
const SIGN_MAX_MS = 30 * 60_000;

/** By convention `host-1`; what a host name may not have in a key's name is left out. Pure. */
export function signingKeyName(hostName: string): string {
  const plain = hostName.replace(/[^A-Za-z0-9.-]/g, "").slice(0, 64);
  return `${plain === "" ? "nixdeploy" : plain}-copy-1`;
}

/**
 * Reads the key of this machine, and makes it if it is not there.
 * @throws NixdeployError("host") when others may read it, it is none, or it cannot be made
 */
export async function ensureSigningKey(
  path: string,
  options: { readonly hostName: string; readonly random: Random; readonly onMade: (path: string) => void },
): Promise<SecretKey> {
  try {
    const found = await readKeyFile(path);
    if (found !== null) return found;
    const key = secretKeyFromSeed(signingKeyName(options.hostName), options.random.bytes(32));
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    if (await placeNewFile(path, formatSecretKey(key))) options.onMade(path);
    // Somebody else's, where that was there first.
    return (await readKeyFile(path)) ?? key;
  } catch (error) {
    if (error instanceof NixdeployError) throw error;
    throw new NixdeployError("host", `cannot use the signing key ${path}: ${describeError(error)}`, {
      hint: "Name another key with --signing-key-file, or leave signing out with --no-sign.",
      cause: error,
    });
  }
}

/** Whole or not at all, and never over another one. @returns whether it is ours */
async function placeNewFile(path: string, text: string): Promise<boolean> {
  const temporary = `${path}.${randomUUID()}`;
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.chmod(0o600);
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(temporary, path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
  return true;
}

async function readKeyFile(path: string): Promise<SecretKey | null> {
  const found = await stat(path).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  });
  if (found === null) return null;
  if ((found.mode & OTHERS_BITS) !== 0) {
    throw new NixdeployError("host", `cannot use the signing key ${path}: others may read it`, {
      hint: `If nobody did: chmod 600 ${path}. Else remove it, and the key from every nix.conf that trusts it.`,
    });
  }
  try {
    return parseSecretKey(await readFile(path, "utf8"));
  } catch (error) {
    if (!(error instanceof NixParseError)) throw error;
    throw new NixdeployError("host", `cannot use the signing key ${path}: ${error.reason}`, {
      hint: "Remove it: another one is made, which the hosts are asked to trust anew.",
      cause: error,
    });
  }
}

/** The secret never leaves the machine: what is printed is the public half. */
const SIGN_THERE_SCRIPT = `set -eu
umask 077
name=$1; shift
if [ "$(id -u)" = 0 ]; then dir=/var/lib/nixdeploy/copy; else dir="\${XDG_STATE_HOME:-$HOME/.local/state}/nixdeploy/copy"; fi
key="$dir/signing-key"
mkdir -p "$dir"
if ! [ -s "$key" ]; then
  new=$(mktemp -d "$dir/new.XXXXXX")
  trap 'rm -rf -- "$new"' EXIT
  nix-store --generate-binary-cache-key "$name" "$new/secret" "$new/public" >&2
  sync "$new/secret" 2>/dev/null || :
  # Not over one that somebody else has just made.
  ln "$new/secret" "$key" 2>/dev/null || [ -s "$key" ]
fi
if [ -n "$(find -L "$key" -perm -004 -o -perm -040)" ]; then echo "$key can be read by others: chmod 600 it, if nobody did" >&2; exit 1; fi
run() { nix --extra-experimental-features nix-command "$@"; }
run store sign --recursive --key-file "$key" "$@" >&2
printf 'nixdeploy-public-key=%s\\n' "$(run key convert-secret-to-public < "$key")"
`;

/** Has another machine sign closures in its own store. @returns its public key @throws NixdeployError */
export async function signThere(
  side: Side,
  options: { readonly paths: readonly StorePath[]; readonly hostName: string; readonly signal: AbortSignal },
): Promise<PublicKey> {
  const words = [signingKeyName(options.hostName), ...options.paths];
  const result = await side.run({ text: SIGN_THERE_SCRIPT, words, deadlineMs: SIGN_MAX_MS }, options.signal);
  const [, text] = /^nixdeploy-public-key=(\S+)$/m.exec(result.stdout) ?? [];
  if (result.code === 0 && text !== undefined) {
    try {
      return parsePublicKey(text);
    } catch {
      // Said below.
    }
  }
  const why = lastLine(result.stderr) || `the script ended with ${result.code ?? "a signal"}`;
  throw new NixdeployError("host", `cannot have ${side.name} sign: ${why}`, {
    details: numbered([
      `Is the command \`nix\` there, 2.8 or newer? ssh ${side.name} nix --version`,
      "Leave signing out: --no-sign",
    ]),
  });
}
