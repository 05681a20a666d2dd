/** A coordinator on its own host, by its data directory: disk, database, backups, and what the running process says of itself. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../agent/machine/system-error.ts";
import { statusSchema } from "../api/status.ts";
import { createHttpTransport, type HttpTransport, probeSocket } from "../client/api/transport.ts";
import { readCertificate } from "../http/certificate.ts";
import type { Clock, Random } from "../runtime.ts";
import { readLastBackup } from "../server/operations/last-backup.ts";
import { NIXDEPLOY_VERSION } from "../version.ts";
import { type Check, type Finding, fault, ok, skipped, warning } from "./finding.ts";
import { judgeCertificate } from "./judge-coordinator.ts";
import { judgeBackup, judgeOpenFiles, judgeSecrecy, type RoomLimits } from "./judge-machine.ts";
import { judgeServerUnit } from "./judge-units.ts";
import { lookAtRoom } from "./nix-checks.ts";
import { findUnit } from "./units.ts";

export type ServerLook = {
  readonly dataDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  /** Looks at every page: minutes for a large one, in which this process would do nothing else. */
  readonly checkDatabase: (signal: AbortSignal) => Promise<readonly Finding[]>;
};

const MB = 1_000_000;
const DATA_ROOM: RoomLimits = {
  warningBytes: 2_000 * MB,
  faultBytes: 250 * MB,
  hint: "Give it a larger disk: the coordinator stops to be ready below 64 MiB (docs/operating.md).",
};
const DATABASE_MAX_MS = 120_000;
const CONTROL_SOCKET = "control.sock";
const FILE_BYTES_MAX = 16 * 1024 * 1024;

export function createServerChecks(look: ServerLook): readonly Check[] {
  const { dataDirectory, clock, checkDatabase } = look;
  const group = "server" as const;
  return [
    { group, name: "directory", look: async () => await lookAtDirectory(dataDirectory) },
    { group, name: "disk", look: async () => await lookAtDisks(dataDirectory) },
    { group, name: "database", deadlineMs: DATABASE_MAX_MS, look: checkDatabase },
    {
      group,
      name: "backup",
      look: async () => [judgeBackup(await readLastBackup(dataDirectory), clock.nowMs())],
    },
    { group, name: "unit", look: async (signal) => [await lookAtUnit(look, signal)] },
    { group, name: "ready", look: (signal) => askServer(look, signal, lookAtReadiness) },
    { group, name: "files", look: (signal) => askServer(look, signal, lookAtOpenFiles) },
    { group, name: "tls", look: (signal) => askServer(look, signal, lookAtPublicUrl) },
  ];
}

async function lookAtDirectory(dataDirectory: string): Promise<readonly Finding[]> {
  const seen = await stat(dataDirectory).catch((error: unknown) => {
    if (isMissing(error)) return null;
    throw error;
  });
  if (seen === null) {
    return [
      fault(
        `there is no ${dataDirectory}`,
        "`nixdeploy serve` makes it at its first start; --data-dir says where it is.",
      ),
    ];
  }
  const directory = judgeSecrecy(dataDirectory, seen.mode);
  const token = join(dataDirectory, "admin-token");
  try {
    return [directory, judgeSecrecy(token, (await stat(token)).mode)];
  } catch (error) {
    if (isMissing(error)) return [directory];
    throw error;
  }
}

async function lookAtDisks(dataDirectory: string): Promise<readonly Finding[]> {
  const nars = join(dataDirectory, "nars");
  const [own, narsDevice] = await Promise.all([dataDirectory, nars].map(async (path) => await deviceOf(path)));
  const places = narsDevice === null || narsDevice === own ? [dataDirectory] : [dataDirectory, nars];
  return await Promise.all(places.map(async (place) => await lookAtRoom(place, DATA_ROOM)));
}

async function deviceOf(path: string): Promise<number | null> {
  return await stat(path).then(
    ({ dev }) => dev,
    () => null,
  );
}

/** As docs/install.md and the NixOS module call it. */
const UNIT = "nixdeploy.service";

async function lookAtUnit({ dataDirectory, environment, clock }: ServerLook, signal: AbortSignal): Promise<Finding> {
  const runs = await probeSocket(join(dataDirectory, CONTROL_SOCKET), signal);
  const answer = await findUnit({ names: [UNIT], isRight: () => true, environment, clock });
  return judgeServerUnit(answer, { name: UNIT, runs });
}

type Asking = { readonly http: HttpTransport; readonly look: ServerLook; readonly signal: AbortSignal };

/** Through the control socket, where `serve` runs. */
async function askServer(
  look: ServerLook,
  signal: AbortSignal,
  ask: (asking: Asking) => Promise<readonly Finding[]>,
): Promise<readonly Finding[]> {
  const socketPath = join(look.dataDirectory, CONTROL_SOCKET);
  if (!(await probeSocket(socketPath, signal))) return [skipped("the coordinator does not run")];
  const { environment: env, clock, random } = look;
  const userAgent = `nixdeploy/${NIXDEPLOY_VERSION}`;
  await using http = createHttpTransport({ url: "http://localhost", socketPath, env, clock, random, userAgent });
  return await ask({ http, look, signal });
}

async function readFile({ http, signal }: Asking, path: string): Promise<string> {
  const bytes = await http.readFile({ path, bytesMax: FILE_BYTES_MAX, signal });
  return Buffer.from(bytes ?? []).toString("utf8");
}

/** What is not ready is thrown, with the coordinator's own words. */
async function lookAtReadiness(asking: Asking): Promise<readonly Finding[]> {
  await readFile(asking, "/readyz");
  return [ok("the coordinator runs, and its disks take what it writes")];
}

const readStatus = async ({ http, signal }: Asking) =>
  await http.call({ method: "GET", path: "/status", schema: statusSchema, signal });

async function lookAtOpenFiles(asking: Asking): Promise<readonly Finding[]> {
  const limit = /^process_max_fds (\d+)/m.exec(await readFile(asking, "/metrics"))?.[1];
  if (limit === undefined) return [skipped("this system does not say it")];
  const { online, offline, unknown } = (await readStatus(asking)).agents;
  return [judgeOpenFiles(Number(limit), online + offline + unknown)];
}

async function lookAtPublicUrl(asking: Asking): Promise<readonly Finding[]> {
  const { clock } = asking.look;
  const url = new URL((await readStatus(asking)).url);
  if (url.protocol !== "https:") {
    const hint =
      "Behind a proxy that speaks TLS, say so: serve --public-url https://…; else give it --tls-cert and --tls-key.";
    return [warning(`the address that it tells others is ${url.origin}, without TLS`, hint)];
  }
  const certificate = await readCertificate(url, { authorities: null, signal: asking.signal });
  return judgeCertificate(certificate, { host: url.hostname, nowMs: clock.nowMs() });
}
