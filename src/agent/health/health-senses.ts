/**
 * What health checks ask of a real machine: units of systemd, TCP ports, web servers.
 *
 * Proxies and authorities are those of the environment, but this machine is asked directly: a proxy would look for
 * the service on itself.
 */
import { connect } from "node:net";
import type { HttpClient } from "../../http/client.ts";
import { failureOfConnection } from "../../http/failure.ts";
import type { ServiceManager } from "../machine/systemd.ts";
import type { HealthSenses } from "./health-probe.ts";

const THIS_MACHINE = ["localhost", "127.0.0.0/8", "::1"] as const;

export function createHealthSenses(deps: {
  readonly services: Pick<ServiceManager, "readUnitStates">;
  /** A new one each time: where the environment names authorities that cannot be read, that is a failed try. */
  readonly createHttp: () => AsyncDisposable & Pick<HttpClient, "openBody">;
}): HealthSenses {
  return {
    readUnitStates: deps.services.readUnitStates,
    connect: ({ host, port }, signal) => openAndClose({ host, port }, signal),
    async readStatus(request, signal) {
      await using http = deps.createHttp();
      await using answer = await http.openBody({ ...request, headers: { connection: "close" }, signal });
      return answer.status;
    },
  };
}

/** The environment for the HTTP client of health checks. Pure. */
export function withoutProxyToThisMachine(
  environment: Readonly<Record<string, string | undefined>>,
): Readonly<Record<string, string | undefined>> {
  const listed = [environment["no_proxy"], environment["NO_PROXY"]].find((text) => text);
  return { ...environment, no_proxy: [...(listed === undefined ? [] : [listed]), ...THIS_MACHINE].join(",") };
}

async function openAndClose(
  target: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect(target);
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  socket.once("connect", () => resolve());
  // Stays: what comes after the end of the wait must not be an error that nobody handles.
  const peer = { source: `${target.host} port ${target.port}`, isThroughProxy: false };
  socket.on("error", (error) => reject(failureOfConnection(error, peer)));
  try {
    await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  }
}
