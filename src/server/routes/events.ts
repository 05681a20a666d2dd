/** GET /api/v1/events: everything that changes in the caller's workspaces, as it happens. */
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { mayDo } from "../access/authorization.ts";
import { listWorkspaces } from "../database/workspaces.ts";
import { streamEvents } from "../events/event-stream.ts";
import type { Services } from "../services.ts";
import { type RouteContext, visibleWorkspaces } from "./context.ts";
import { defineRoute, EVENT_STREAM, type Route } from "./route.ts";

const EVENT_ID = /^\d{1,15}$/;

export function createEventRoutes(services: Services): readonly Route[] {
  const stream = defineRoute({
    ...{ method: "GET", path: "/events", right: "watch" },
    summary: "Everything that changes in these workspaces, from now on or behind Last-Event-ID",
    query: z.object({
      workspace: z.string().optional(),
      /** The same as the header Last-Event-ID, which comes first; 0: whatever is kept. */
      after: z.string().regex(EVENT_ID, "it must be the id of an event").optional(),
    }),
    answers: { 200: EVENT_STREAM },
    async handle(context, { query }) {
      const first = await visibleWorkspaces(services, context, "watch");
      return streamEvents(services, {
        listWorkspaces: () => listWatched(services, context, query.workspace === undefined ? null : first),
        afterId: readCursor(context, query.after),
        signal: context.req.raw.signal,
      });
    },
  });
  return [stream];
}

/** What the caller may watch now; null when he may not any more. @param only those of these that are still there */
async function listWatched(services: Services, context: RouteContext, only: ReadonlyMap<string, unknown> | null) {
  const authorization = context.req.header("authorization") ?? null;
  if (authorization !== null && (await services.authenticator.authenticate(authorization)) === null) return null;
  const principal = context.get("principal");
  const all = await listWorkspaces(services.database);
  const mine = all.filter(({ id }) => mayDo(principal, "watch", id) && (only === null || only.has(id)));
  return new Map(mine.map(({ id, name }) => [id, name]));
}

/** @throws NixdeployError `usage` for what is no id of an event */
function readCursor(context: RouteContext, after: string | undefined): number | null {
  const text = context.req.header("last-event-id") ?? after;
  if (text === undefined) return null;
  if (EVENT_ID.test(text)) return Number(text);
  throw new NixdeployError("usage", "cannot read Last-Event-ID: it must be the id of an event of this stream");
}
