/**
 * What is done about every request, whichever port it comes to and whatever it asks for: it gets an id, which is in its
 * answer too, and it is counted and, at level debug, logged.
 */
import type { Logger } from "../../log.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { addToProblem } from "../problem.ts";
import type { TrustedProxies } from "./peer-address.ts";
import type { UnderWay } from "./under-way.ts";
import { type Arrival, beginVisit, hideSecrets, REQUEST_ID_HEADER, type Visit } from "./visit.ts";

export type AttendDeps = {
  readonly trustedProxies: TrustedProxies;
  readonly underWay: UnderWay;
  readonly meters: Meters;
  readonly random: Random;
  readonly clock: Clock;
  readonly log: Logger;
};

export type Attend = (
  request: Request,
  arrival: Arrival,
  /** Never throws. */
  answer: (visit: Visit) => Promise<Response>,
) => Promise<Response>;

const PATH_LENGTH_MAX = 300;

export function createAttend(deps: AttendDeps): Attend {
  return async (request, arrival, answer) => {
    const visit = beginVisit(request, arrival, deps);
    const startedMs = deps.clock.monotonicMs();
    const end = deps.underWay.begin();
    const response = await answer(visit).finally(end);
    const durationMs = deps.clock.monotonicMs() - startedMs;
    const { method } = request;
    const { status } = response;
    deps.meters.request({ method, route: visit.route, status, durationMs });
    deps.log.debug("request", {
      requestId: visit.requestId,
      method,
      path: hideSecrets(pathOf(request.url)).slice(0, PATH_LENGTH_MAX),
      status,
      durationMs: Math.round(durationMs * 10) / 10,
      address: visit.address,
    });
    return await withRequestId(response, visit.requestId);
  };
}

async function withRequestId(response: Response, requestId: string): Promise<Response> {
  const named = await addToProblem(response, { requestId });
  named.headers.set(REQUEST_ID_HEADER, requestId);
  return named;
}

/** Without the query. */
function pathOf(url: string): string {
  return URL.parse(url)?.pathname ?? "";
}
