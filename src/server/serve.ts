/** Runs a coordinator on a data directory until the signal is aborted. */
import type { Logger } from "../log.ts";
import type { Clock, Random } from "../runtime.ts";
import { openBlobStore } from "./cache/blob-store.ts";
import { createCoordinator } from "./coordinator.ts";
import { openDataDirectory, writeSecretFile } from "./data-directory.ts";
import { openDatabase } from "./database/dialect.ts";
import { listen } from "./listener.ts";

export type ServeOptions = {
  readonly dataDirectory: string;
  readonly hostname: string;
  readonly port: number;
  readonly tls: { readonly cert: string; readonly key: string } | null;
  /** Null: the address that it listens on. */
  readonly publicUrl: string | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Called once it answers, with its URL. */
  readonly onReady: (url: string) => Promise<void>;
};

export async function runServe(options: ServeOptions): Promise<void> {
  using directory = openDataDirectory(options.dataDirectory);
  let url = options.publicUrl;
  await using coordinator = await createCoordinator({
    database: openDatabase(directory.databaseFile),
    blobs: await openBlobStore(directory.narsDirectory),
    clock: options.clock,
    random: options.random,
    log: options.log,
    publicUrl: () => url ?? "",
    writeAdminToken: async (token) => {
      await writeSecretFile(directory.adminTokenFile, `${token}\n`);
      options.log.info("admin token written", { file: directory.adminTokenFile });
    },
  });
  await using listener = listen(coordinator, { ...options, controlSocket: directory.controlSocket });
  url ??= listener.url;
  await options.onReady(url);
  await aborted(options.signal);
  options.log.info("stopping");
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
