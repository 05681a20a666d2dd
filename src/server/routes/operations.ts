/**
 * What whoever watches over the coordinator asks, outside the API: is the process there, can it work, how much is there.
 *
 * The first two need no token and say nothing of what is in it. `/metrics` takes a token that may watch, and shows its
 * workspaces only: the names of workspaces are nobody else's business.
 */
import { EXPOSITION_TYPE, formatExposition } from "../operations/metrics/exposition.ts";
import { formatProblem } from "../problem.ts";
import type { Services } from "../services.ts";
import { type RouteContext, visibleWorkspaces } from "./context.ts";

const NOT_KEPT = { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" } as const;

/** `GET /healthz`: whoever gets this has asked a process that answers. */
export function answerHealth(): Response {
  return new Response("ok\n", { headers: NOT_KEPT });
}

/** `GET /readyz`: 200, or 503 with the reasons. */
export async function answerReadiness({ readiness }: Services): Promise<Response> {
  const { reasons } = await readiness.check();
  if (reasons.length === 0) return new Response("ready\n", { headers: NOT_KEPT });
  return formatProblem({ title: `The coordinator is not ready: ${reasons[0]}`, status: 503, errors: [...reasons] });
}

/** `GET /metrics`. @throws NixdeployError `not-found` for a token that may not watch anything */
export async function answerMetrics(services: Services, context: RouteContext): Promise<Response> {
  const workspaces = await visibleWorkspaces(services, context, "watch");
  const text = formatExposition(await services.metrics.collect(workspaces));
  return new Response(text, { headers: { "content-type": EXPOSITION_TYPE, "cache-control": "no-store" } });
}
