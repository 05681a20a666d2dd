/**
 * `copy` with one host: log in, look at it, bring the closure over in the asked direction, and see to it that the
 * receiving Nix accepts it. What becomes of the closure then (`profile.ts`, `activate-far.ts`) happens while its temporary
 * roots are held.
 */
import { NixdeployError } from "../../errors.ts";
import type { PathInfo } from "../../nix/path-info.ts";
import { createSignatureVerifier, signPathInfo } from "../../nix/signature.ts";
import { type PublicKey, publicKeyOf, type SecretKey } from "../../nix/signing-key.ts";
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock, Random } from "../../runtime.ts";
import { formatSshAddress, type SshAddress } from "../ssh/ssh-address.ts";
import { openSshSession } from "../ssh/ssh-session.ts";
import { type Probe, probeSide } from "./probe.ts";
import type { RootOptions } from "./root.ts";
import { createFarSide, createLocalSide, type Side } from "./side.ts";
import { signThere } from "./signing.ts";
import { type TransferEvent, transferClosure } from "./transfer.ts";
import { type Acceptance, arrangeTrust, explainRefusal, listUnsigned, parseKeys } from "./trust.ts";

export type CopyRequest = {
  readonly direction: "to" | "from";
  readonly paths: readonly StorePath[];
  readonly sign: boolean;
  readonly compress: boolean;
  readonly jobs: number;
};

export type CopyDeps = {
  /** Reads or makes the key of this machine; asked when something must be signed here. */
  readonly loadKey: () => Promise<SecretKey>;
  /** A yes or no from whoever sits at the terminal; null: nobody can be asked. */
  readonly confirm: (question: string) => Promise<boolean | null>;
  readonly askSecret: RootOptions["askSecret"];
  readonly note: (text: string) => void;
  readonly onEvent: (host: string, event: TransferEvent) => void;
  readonly environment: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
};

export type CopyResult = {
  readonly host: string;
  /** Of the closure. */
  readonly paths: number;
  readonly copied: number;
  /** Of NARs, uncompressed. */
  readonly bytes: number;
  /** With which key it was signed; null: nothing had to be. */
  readonly key: string | null;
};

/** The two machines of a copy, once they were looked at. */
export type Copying = {
  readonly far: Side;
  readonly local: Side;
  /** Where the closure goes. */
  readonly receiver: { readonly side: Side; readonly probe: Probe };
};

export type CopyHooks<After> = {
  /** Before anything is copied. @throws to leave it at that */
  readonly check: (receiver: Copying["receiver"]) => void;
  /** When the closure is there, before its roots go. */
  readonly after: (copying: Copying) => Promise<After>;
};

/** @throws NixdeployError · the signal's reason */
export async function copyWithHost<After>(
  address: SshAddress,
  request: CopyRequest,
  deps: CopyDeps,
  { check, after }: CopyHooks<After>,
): Promise<CopyResult & { readonly after: After }> {
  const { environment, clock, signal } = deps;
  await using session = await openSshSession({ address, compress: request.compress, environment, clock, signal });
  const far = createFarSide(session);
  const local = createLocalSide({ environment, clock });
  const farProbe = await probeSide(far, signal);
  const isTo = request.direction === "to";
  const receiver = isTo ? { side: far, probe: farProbe } : { side: local, probe: await probeSide(local, signal) };
  check(receiver);
  const signing = createSigning({ ...{ request, deps, far, farProbe, receiver } });
  const host = formatSshAddress(address);
  await using transferred = await transferClosure({
    ...{ roots: request.paths, jobs: request.jobs, clock, random: deps.random, signal },
    from: storeOf(isTo ? local : far, () => false),
    to: storeOf(receiver.side, () => signing.isRoot),
    ...{ prepare: signing.prepare, vet: signing.vet, explain: signing.explain },
    freeBytes: receiver.probe.freeKilobytes === null ? null : receiver.probe.freeKilobytes * 1024,
    onEvent: (event) => deps.onEvent(host, event),
  });
  const { pathsTotal, copiedPaths, copiedBytes } = transferred;
  return {
    ...{ host, paths: pathsTotal, copied: copiedPaths, bytes: copiedBytes, key: signing.keyName },
    after: await after({ far, local, receiver }),
  };
}

function storeOf(side: Side, isRoot: () => boolean) {
  const name = side.isLocal ? "the local Nix store" : `the Nix store of ${side.name}`;
  return { name, open: (signal: AbortSignal) => side.openDaemon({ signal, asRoot: isRoot() }) };
}

type SigningOptions = Pick<Copying, "far" | "receiver"> & {
  readonly farProbe: Probe;
  readonly request: CopyRequest;
  readonly deps: CopyDeps;
};

/** What of a transfer has to do with signatures. The state is that of one copy. */
function createSigning({ request, deps, far, farProbe, receiver }: SigningOptions) {
  const { side, probe } = receiver;
  let secret: SecretKey | null = null;
  let key: PublicKey | null = null;
  let acceptance: Acceptance | null = null;
  const trusted = parseKeys(probe.trustedKeys);

  const readKey = async (): Promise<PublicKey | null> => {
    if (!request.sign) return null;
    if (request.direction === "to") {
      secret = await deps.loadKey();
      return publicKeyOf(secret);
    }
    return await signThere(far, { paths: request.paths, hostName: farProbe.hostName, signal: deps.signal });
  };

  return {
    get isRoot() {
      return acceptance === "as-root";
    },
    get keyName() {
      return key?.name ?? null;
    },
    async prepare(missing: readonly PathInfo[], trust: Parameters<typeof arrangeTrust>[0]["trust"]) {
      if (acceptance !== null || listUnsigned(missing, probe).length === 0) return "ready" as const;
      key = await readKey();
      acceptance = await arrangeTrust({ ...{ side, probe, key, trust }, ...deps });
      // The signatures made over there, the daemon's new keys and root's connection are seen by new sessions only.
      return "reopen" as const;
    },
    /** Ours is added, theirs must be there: what comes in by trust alone was checked by us. */
    vet(info: PathInfo): PathInfo {
      if (secret !== null) return { ...info, signatures: [...info.signatures, signPathInfo(info, secret)] };
      if (request.direction === "to" || key === null || info.contentAddress !== null) return info;
      if (createSignatureVerifier([key, ...trusted]).verify(info) !== null) return info;
      throw new NixdeployError(
        "remote",
        `cannot copy ${info.storePath}: the signature of ${far.name} does not fit it`,
        {
          hint: `Is its store damaged? Try there: nix-store --verify-path ${info.storePath}`,
        },
      );
    },
    explain: (error: unknown, info: PathInfo) => explainRefusal(error, { info, key, side, probe }),
  };
}
