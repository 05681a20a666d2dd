/**
 * Who checks the signatures of a path that is imported: we always do, against this device's own keys, before the first
 * byte (`verify-closure.ts`). The daemon does too, against the keys of its nix.conf, unless it trusts us. Pure.
 */
import { NixdeployError } from "../../../errors.ts";
import { DaemonError } from "../../daemon/daemon-error.ts";
import type { DaemonTrust } from "../../daemon/handshake.ts";
import type { NarInfo } from "../../narinfo.ts";
import { formatPublicKey, type PublicKey } from "../../signing-key.ts";

/**
 * Whether to ask the daemon for its check. One that trusts us need not know our keys, so it is not asked to; one that
 * does not checks whatever we say; and of one that does not tell (before 1.35) the same holds, so that asking for no
 * check is right either way.
 */
export function mustDaemonCheck(trust: DaemonTrust): boolean {
  return trust === "not-trusted";
}

/** The error of an import for the user: where the daemon misses a signature, with the line that nix.conf needs. */
export function explainImportFailure(
  error: unknown,
  options: { readonly info: NarInfo; readonly trustedKeys: readonly PublicKey[] },
): unknown {
  if (!(error instanceof DaemonError) || !error.isSignatureRefusal) return error;
  const { info, trustedKeys } = options;
  const signers = trustedKeys.filter(({ name }) => info.signatures.some((text) => text.startsWith(`${name}:`)));
  const line = `extra-trusted-public-keys = ${signers.map(formatPublicKey).join(" ")}`;
  return new NixdeployError(
    "host",
    `cannot add ${info.storePath} to the Nix store: it has no signature by a key that the Nix daemon trusts, and this user is not one of the daemon's trusted-users`,
    {
      hint: `Add the line \`${line}\` to the daemon's nix.conf and restart it (on NixOS: nix.settings.trusted-public-keys), or run the agent as root or as one of its \`trusted-users\`.`,
      cause: error,
    },
  );
}
