/** Logins that were refused: counted, limited by address, and told to the log. The agent itself hears why in any case. */
import type { Logger } from "../../log.ts";
import type { CoordinatorFrameInput } from "../../protocol.ts";
import type { FailedLogins } from "../access/failed-logins.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import type { Visit } from "../requests/visit.ts";

type Refusal = Extract<CoordinatorFrameInput, { kind: "refused" }>;

/** In the log, unless its address floods it: who is refused again and again is told all the same. */
export function sayRefused(
  deps: { readonly failedLogins: FailedLogins; readonly meters: Meters; readonly log: Logger },
  refused: { readonly name: string; readonly visit: Visit; readonly refusal: Refusal },
): void {
  const { code, message } = refused.refusal;
  const { requestId, address } = refused.visit;
  const isFailure = code !== "version";
  if (isFailure) deps.meters.failedLogin("agent");
  const isFlood = isFailure && deps.failedLogins.note(address) !== null;
  const say = isFlood ? deps.log.debug : deps.log.warn;
  say("agent refused", { name: refused.name, code, reason: message, address, requestId });
}
