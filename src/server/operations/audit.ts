/**
 * Writes down who did what. An act is on record before its answer leaves; it is done by then, so an entry that cannot be
 * written goes to the log, and the answer says what is true.
 */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Clock } from "../../runtime.ts";
import type { Principal } from "../access/authentication.ts";
import { findAgent } from "../database/agents.ts";
import { insertAuditRow, type NewAuditRow } from "../database/audit.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findToken } from "../database/tokens.ts";
import type { Visit } from "../requests/visit.ts";

export type Act = {
  readonly principal: Principal;
  readonly visit: Pick<Visit, "address" | "requestId">;
  /** `POST /rollouts` */
  readonly act: string;
  readonly workspaceId: string | null;
  readonly target: string;
  readonly effect: string;
};

export type Auditor = {
  record(act: Act): Promise<void>;
};

/** Of a column; who asks for a thousand agents gets a line, not a page. */
export const AUDIT_TEXT_MAX = 500;

export function createAuditor(deps: {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly log: Logger;
}): Auditor {
  const { database, clock, log } = deps;
  return {
    async record(act) {
      try {
        await insertAuditRow(database, { ...(await auditRowOf(database, act)), at_ms: clock.nowMs() });
      } catch (error) {
        const { principal, visit, workspaceId, ...what } = act;
        const who = principal.kind === "token" ? principal.tokenId : principal.kind;
        log.error("cannot write to the audit log", { ...what, who, ...visit, reason: describeError(error) });
      }
    },
  };
}

/** An act as it is stored; also for those who store it in the transaction of the act itself. */
export async function auditRowOf(database: CoordinatorDatabase, act: Act): Promise<Omit<NewAuditRow, "at_ms">> {
  const actor = await describeActor(database, act.principal);
  return {
    workspace_id: act.workspaceId,
    actor_kind: act.principal.kind,
    actor_id: actor.id,
    actor_name: actor.name,
    address: act.visit.address,
    act: act.act,
    target: act.target.slice(0, AUDIT_TEXT_MAX),
    effect: act.effect.slice(0, AUDIT_TEXT_MAX),
    request_id: act.visit.requestId,
  };
}

async function describeActor(database: CoordinatorDatabase, principal: Principal) {
  switch (principal.kind) {
    case "control":
      return { id: null, name: "the coordinator's own host" };
    case "agent":
      return { id: principal.agentId, name: (await findAgent(database, principal.agentId))?.name ?? "" };
    case "token": {
      const description = (await findToken(database, principal.tokenId))?.description ?? "";
      return {
        id: principal.tokenId,
        name: [principal.tokenKind, description].filter((text) => text !== "").join(": "),
      };
    }
    default:
      return principal satisfies never;
  }
}
