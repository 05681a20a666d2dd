/**
 * A request as the coordinator speaks of it: in its log, in the audit log, in the answer. Made before anything else is
 * done about the request.
 */
import { drawId } from "../../names.ts";
import type { Random } from "../../runtime.ts";
import { readClientAddress, type TrustedProxies } from "./peer-address.ts";

/** How a request came in. */
export type Arrival = {
  /** It came through the control socket, and may do everything. */
  readonly control: boolean;
  /** The other end of the connection; null for the control socket, or where nobody knows. */
  readonly peer?: string | null;
};

export type Visit = {
  readonly requestId: string;
  readonly control: boolean;
  /** Of the client, as far as proxies can be trusted; null for the control socket. */
  readonly address: string | null;
  /** The pattern that its path fits; told by whoever finds the route. */
  route: string;
};

export const REQUEST_ID_HEADER = "x-request-id";
export const NO_ROUTE = "(none)";

/** Of a connection in this process. */
export const NO_VISIT: Visit = { requestId: "-", control: false, address: null, route: NO_ROUTE };

const REQUEST_ID = /^[\w.~+/=:@-]{1,64}$/;

export function beginVisit(
  request: Request,
  arrival: Arrival,
  deps: { readonly trustedProxies: TrustedProxies; readonly random: Random },
): Visit {
  const { peer } = arrival;
  const given = request.headers.get(REQUEST_ID_HEADER) ?? "";
  const forwardedFor = request.headers.get("x-forwarded-for");
  return {
    requestId: REQUEST_ID.test(given) ? given : drawId(deps.random),
    control: arrival.control,
    address:
      peer === undefined || peer === null ? null : readClientAddress({ peer, forwardedFor }, deps.trustedProxies),
    route: NO_ROUTE,
  };
}

/** A path as it may be shown: whoever revokes a token may name it by the token itself. */
export function hideSecrets(path: string): string {
  return path.replaceAll(/\bnda?_[\w-]+/g, "nd_…");
}
