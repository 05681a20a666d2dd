/** The REST API on a data directory that no `serve` works on: for commands on the coordinator's own host. */
import { createHttpClient } from "../http/client.ts";
import { silentLogger } from "../log.ts";
import { systemClock, systemRandom } from "../runtime.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import { openBlobStore } from "./cache/blob-store.ts";
import { createCoordinator } from "./coordinator.ts";
import { openDataDirectory, writeSecretFile } from "./data-directory.ts";
import { explainDatabaseFault, openDatabase } from "./database/dialect.ts";

export type OfflineCoordinator = AsyncDisposable & { fetch(request: Request): Promise<Response> };

/**
 * @param env for proxies and certificate authorities
 * @throws NixdeployError `conflict` while another process works on the directory
 */
export async function openOfflineCoordinator(
  dataDirectory: string,
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<OfflineCoordinator> {
  const directory = openDataDirectory(dataDirectory);
  const userAgent = `nixdeploy/${NIXDEPLOY_VERSION}`;
  const http = createHttpClient({ userAgent, env, clock: systemClock, random: systemRandom });
  try {
    const coordinator = await createCoordinator({
      database: openDatabase(directory.databaseFile),
      blobs: await openBlobStore(directory.narsDirectory),
      http,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      version: NIXDEPLOY_VERSION,
      isServing: false,
      publicUrl: () => "",
      writeAdminToken: (token) => writeSecretFile(directory.adminTokenFile, `${token}\n`),
    }).catch((error: unknown) => {
      throw explainDatabaseFault(error, directory.databaseFile);
    });
    return {
      fetch: (request) => coordinator.fetch(request, { control: true }),
      async [Symbol.asyncDispose]() {
        await coordinator[Symbol.asyncDispose]();
        await http[Symbol.asyncDispose]();
        directory[Symbol.dispose]();
      },
    };
  } catch (error) {
    directory[Symbol.dispose]();
    throw error;
  }
}
