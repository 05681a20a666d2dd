/** Runs a coordinator on a data directory until the signal is aborted. */
import { lookup } from "node:dns/promises";
import { NixdeployError } from "../errors.ts";
import { createHttpClient } from "../http/client.ts";
import type { Logger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import { openBlobStore } from "./cache/blob-store.ts";
import { createCoordinator } from "./coordinator.ts";
import { openDataDirectory, writeSecretFile } from "./data-directory.ts";
import { explainDatabaseFault, openDatabase } from "./database/dialect.ts";
import { type Listener, listen } from "./listener.ts";
import { listChores } from "./operations/chores.ts";
import { type Chore, startUpkeep } from "./operations/upkeep.ts";
import type { TrustedProxies } from "./requests/peer-address.ts";
import { type KeyPair, type KeyPairFiles, readKeyPair } from "./tls/key-pair.ts";
import { createRenewal } from "./tls/renewal.ts";

export type ServeOptions = {
  readonly dataDirectory: string;
  readonly hostname: string;
  readonly port: number;
  readonly tls: KeyPairFiles | null;
  /** Null: the address that it listens on. */
  readonly publicUrl: string | null;
  /** For proxies and certificate authorities of what it asks itself. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Called once it answers, with its URL. */
  readonly onReady: (url: string) => Promise<void>;
  /** Called once it has been told to stop, before it does. */
  readonly onStopping: () => void;
  /** Called each second while the process moves. */
  readonly onBeat?: () => void;
  /** Default: 400 days. */
  readonly keepAuditMs?: number;
  /** Whose `X-Forwarded-For` counts. Default: this host's. */
  readonly trustedProxies?: TrustedProxies;
};

/** A renewed certificate is in use within this time. */
const TLS_LOOK_MS = 30_000;
const KEEP_AUDIT_MS = 400 * 24 * 60 * 60 * 1000;

export async function runServe(options: ServeOptions): Promise<void> {
  await requireKnownHost(options.hostname);
  const pair = options.tls === null ? null : await readKeyPair(options.tls);
  const choreOptions = { onBeat: options.onBeat ?? (() => {}), keepAuditMs: options.keepAuditMs ?? KEEP_AUDIT_MS };
  using directory = openDataDirectory(options.dataDirectory);
  let url = options.publicUrl;
  await using http = createHttpClient({ ...options, userAgent: `nixdeploy/${NIXDEPLOY_VERSION}` });
  await using coordinator = await createCoordinator({
    database: openDatabase(directory.databaseFile),
    blobs: await openBlobStore(directory.narsDirectory),
    http,
    clock: options.clock,
    random: options.random,
    log: options.log,
    version: NIXDEPLOY_VERSION,
    isServing: true,
    publicUrl: () => url ?? "",
    storage: directory,
    ...(options.trustedProxies === undefined ? {} : { trustedProxies: options.trustedProxies }),
    writeAdminToken: async (token) => {
      await writeSecretFile(directory.adminTokenFile, `${token}\n`);
      options.log.info("admin token written", { file: directory.adminTokenFile });
    },
  }).catch((error: unknown) => {
    throw explainDatabaseFault(error, directory.databaseFile);
  });
  await using listener = listen(coordinator, { ...options, tls: pair, controlSocket: directory.controlSocket });
  await using _ = startUpkeep(options, [
    ...listChores(coordinator.services, choreOptions),
    ...listTlsChores(options, pair, listener),
  ]);
  url ??= listener.url;
  await options.onReady(url);
  await aborted(options.signal);
  options.onStopping();
  options.log.info("stopping");
}

function listTlsChores({ tls, log }: ServeOptions, pair: KeyPair | null, listener: Listener): readonly Chore[] {
  if (tls === null || pair === null) return [];
  const renewal = createRenewal({ files: tls, current: pair, use: (next) => listener.replaceTls(next), log });
  return [{ what: "look at the TLS certificate", everyMs: TLS_LOOK_MS, run: () => renewal.check() }];
}

/** Asked before, because Bun says of a name that nobody knows that it is in use. */
async function requireKnownHost(hostname: string): Promise<void> {
  try {
    await lookup(hostname);
  } catch (cause) {
    throw new NixdeployError("host", `cannot listen on ${hostname}: no such host is known`, {
      cause,
      hint: "Give --listen an address of this machine, such as 127.0.0.1:8470.",
    });
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
