/** /api/v1/audit: who did what. For admins; of all workspaces, and of none, for who administrates all of them. */
import { z } from "zod";
import { type AuditEntryDto, auditListSchema } from "../../api/audit.ts";
import { time } from "../../api/fields.ts";
import type { WorkspaceName } from "../../names.ts";
import { mayDo } from "../access/authorization.ts";
import { type AuditRow, listAuditRows } from "../database/audit.ts";
import type { Services } from "../services.ts";
import { visibleWorkspaces } from "./context.ts";
import { pageParams, parseCursor, toPage } from "./pages.ts";
import { defineRoute, type Route } from "./route.ts";

const LIMIT_MAX = 1_000;
/** No workspace has it, so only who administrates all of them may do something there. */
const NOWHERE = "";

export function createAuditRoutes(services: Services): readonly Route[] {
  const list = defineRoute({
    ...{ method: "GET", path: "/audit", right: "administrate" },
    summary: "List who did what, newest first",
    query: z.object({
      workspace: z.string().optional(),
      /** No older ones. */
      since: time.optional(),
      ...pageParams({ fallback: 100, max: LIMIT_MAX }),
    }),
    answers: { 200: auditListSchema },
    async handle(context, { query }) {
      const visible = await visibleWorkspaces(services, context, "administrate");
      const isGlobal = query.workspace === undefined && mayDo(context.get("principal"), "administrate", NOWHERE);
      const { limit } = query;
      const rows = await listAuditRows(services.database, {
        workspaceIds: isGlobal ? null : [...visible.keys()],
        sinceMs: query.since === undefined ? null : Date.parse(query.since),
        beforeId: parseCursor(query.after, z.tuple([z.number().int()]))?.[0] ?? null,
        limit: limit + 1,
      });
      const { page, next } = toPage(rows, { limit, cursorOf: ({ id }) => [id] });
      return context.json({ entries: page.map((row) => auditEntryToDto(row, visible)), next });
    },
  });
  return [list];
}

function auditEntryToDto(row: AuditRow, workspaces: ReadonlyMap<string, WorkspaceName>): AuditEntryDto {
  return {
    at: new Date(row.at_ms).toISOString(),
    workspace: row.workspace_id === null ? null : (workspaces.get(row.workspace_id) ?? null),
    actor: { kind: row.actor_kind, id: row.actor_id, name: row.actor_name },
    address: row.address,
    act: row.act,
    target: row.target,
    effect: row.effect,
    requestId: row.request_id,
  };
}
