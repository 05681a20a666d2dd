/**
 * How a command reaches the coordinator: by its URL with a token, or on its own host by the data directory without
 * one. In the second case through `DATA_DIR/control.sock` while `serve` runs, else on the database itself, which is
 * the one place where a client command loads the server.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type AdministrationClient, createAdministrationClient } from "../client/api/administration.ts";
import { type CoordinatorClient, createCoordinatorClient } from "../client/api/coordinator.ts";
import { createFetchCallApi, createHttpTransport, probeSocket } from "../client/api/transport.ts";
import { NixdeployError } from "../errors.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import type { ArgDeclaration } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { findCoordinatorUrl, type TokenRole } from "./command-line/environment.ts";
import { resolveCoordinatorUrl, resolveToken } from "./coordinator-access.ts";
import { loadLogins } from "./logins.ts";

/** For the commands that {@link openAdministration} serves. */
export const DATA_DIR_ARG = {
  type: "string",
  valueHint: "DIR",
  description: "On the coordinator's own host: its data directory, instead of URL and token",
} as const satisfies ArgDeclaration;

type Connecting = Pick<CommandContext, "urlFlag" | "env" | "clock" | "random" | "log" | "signal">;

/** @throws NixdeployError "usage" without URL or token */
export async function openCoordinator(
  context: Connecting,
  role: TokenRole,
): Promise<CoordinatorClient & AsyncDisposable> {
  const { text: url } = await resolveCoordinatorUrl(context);
  const { text: token } = await resolveToken(context, role, url);
  return openCoordinatorAt(context, { url, token });
}

export function openCoordinatorAt(
  context: Connecting,
  access: { readonly url: string; readonly token: string },
): CoordinatorClient & AsyncDisposable {
  const http = createHttpTransport({ ...httpOptions(context), ...access });
  return { ...createCoordinatorClient(http), [Symbol.asyncDispose]: () => http[Symbol.asyncDispose]() };
}

/** A coordinator that runs, wherever it is, or the database of one that does not. */
export type OpenedCoordinator =
  | { readonly kind: "running"; readonly coordinator: CoordinatorClient & AsyncDisposable }
  | { readonly kind: "stopped"; readonly coordinator: AdministrationClient & AsyncDisposable };

/** @throws as {@link openAnywhere} does */
export async function openAdministration(
  context: Connecting,
  dataDir: string | undefined,
): Promise<AdministrationClient & AsyncDisposable> {
  return (await openAnywhere(context, dataDir)).coordinator;
}

/** @throws NixdeployError "usage" when neither a URL nor a data directory is given, or both are on the command line */
export async function openAnywhere(context: Connecting, dataDir: string | undefined): Promise<OpenedCoordinator> {
  if (dataDir !== undefined && context.urlFlag !== null) {
    throw new NixdeployError("usage", "cannot use --data-dir and --url together: each names a coordinator");
  }
  if (dataDir !== undefined) return await openDataDirectory(resolve(dataDir), context);
  if (findCoordinatorUrl(context) === null && (await loadLogins(context.env)).logins.length === 0) {
    throw new NixdeployError("usage", "cannot find the coordinator: neither its URL nor its data directory is given", {
      hint:
        "Set NIXDEPLOY_URL (or --url) and NIXDEPLOY_TOKEN, or `nixdeploy login URL`; on the coordinator's own host --data-dir DIR is enough, " +
        "for example --data-dir /var/lib/nixdeploy/server.",
    });
  }
  return { kind: "running", coordinator: await openCoordinator(context, "general") };
}

function httpOptions({ env, clock, random, log }: Connecting) {
  return { userAgent: `nixdeploy/${NIXDEPLOY_VERSION}`, env, clock, random, log };
}

async function openDataDirectory(dataDir: string, context: Connecting): Promise<OpenedCoordinator> {
  const socketPath = join(dataDir, "control.sock");
  if (!existsSync(dataDir)) {
    throw new NixdeployError("not-found", `cannot use the data directory ${dataDir}: there is none`, {
      hint: "`nixdeploy serve` makes it at its first start.",
    });
  }
  if (await probeSocket(socketPath, context.signal)) {
    const http = createHttpTransport({ ...httpOptions(context), url: "http://localhost", socketPath });
    const coordinator = {
      ...createCoordinatorClient(http),
      [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
    };
    return { kind: "running", coordinator };
  }
  const { openOfflineCoordinator } = await import("../server/offline.ts");
  const offline = await openOfflineCoordinator(dataDir, context.env);
  const call = createFetchCallApi((request) => offline.fetch(request));
  const coordinator = {
    ...createAdministrationClient(call),
    [Symbol.asyncDispose]: () => offline[Symbol.asyncDispose](),
  };
  return { kind: "stopped", coordinator };
}
