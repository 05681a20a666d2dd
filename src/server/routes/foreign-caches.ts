/** Caches of others, from which a workspace's agents may fetch: put, list, remove. */
import { z } from "zod";
import { foreignCacheListSchema, foreignCacheSchema, saveForeignCacheSchema } from "../../api/caches.ts";
import { parseCacheName } from "../../names.ts";
import { foreignCacheToDto } from "../convert.ts";
import { listForeignCaches, removeForeignCache } from "../database/caches.ts";
import { removeKeyVouchers } from "../database/key-vouchers.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { putForeignCache } from "../workspaces/foreign-caches.ts";
import { listOfVisible, noteAct, type RouteContext, readId } from "./context.ts";
import { LIST_PAGES, pageOf, sortKeyOf } from "./pages.ts";
import { defineRoute, NOTHING, type Route } from "./route.ts";
import { findNamed } from "./workspaces.ts";

const PATH = "/workspaces/:workspace/foreign-caches/:cache";

export function createForeignCacheRoutes(services: Services): readonly Route[] {
  return [putOne(services), listAll(services), removeOne(services)];
}

function putOne(services: Services): Route {
  return defineRoute({
    ...{ method: "PUT", path: PATH, right: "administrate" },
    summary: "Add a cache of others, or change its address and keys; a device uses it once it trusts its key",
    body: saveForeignCacheSchema,
    answers: { 200: foreignCacheSchema },
    async handle(context, { readBody }) {
      const workspace = await findNamed(services, context, "administrate");
      const name = readCacheName(context);
      const saved = await putForeignCache(services, { ...(await readBody()), workspaceId: workspace.id, name });
      await services.toldCaches.tellAll(workspace.id);
      noteAct(context, { target: `foreign cache ${name}`, effect: `fetched from ${saved.url}` });
      services.log.info("foreign cache saved", { cache: name, workspace: workspace.name, url: saved.url });
      return context.json(foreignCacheToDto(saved, workspace.name));
    },
  });
}

function listAll(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/foreign-caches", right: "read-cache" },
    summary: "List the caches of others, by workspace, in the order in which they are asked",
    query: z.object({ workspace: z.string().optional(), ...LIST_PAGES }),
    answers: { 200: foreignCacheListSchema },
    async handle(context, { query }) {
      const list = (id: string) => listForeignCaches(services.database, id);
      const listed = await listOfVisible(services, context, { right: "read-cache", list });
      const { page, next } = pageOf(listed, {
        ...query,
        cursorOf: ({ row, workspace }) => [workspace, sortKeyOf(row.created_ms), row.name],
      });
      return context.json({ foreignCaches: page.map(({ row, workspace }) => foreignCacheToDto(row, workspace)), next });
    },
  });
}

function removeOne(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: PATH, right: "administrate" },
    summary: "Take a cache of others away",
    answers: { 204: NOTHING },
    async handle(context) {
      const workspace = await findNamed(services, context, "administrate");
      const name = readCacheName(context);
      const isRemoved = await services.database.transaction().execute(async (transaction) => {
        if (!(await removeForeignCache(transaction, { workspace_id: workspace.id, name }))) return false;
        await removeKeyVouchers(transaction, { workspaceId: workspace.id, cacheName: name });
        return true;
      });
      if (!isRemoved) throw notFound(`the foreign cache ${name}`);
      await services.toldCaches.tellAll(workspace.id);
      noteAct(context, { target: `foreign cache ${name}`, effect: "removed" });
      services.log.info("foreign cache removed", { cache: name, workspace: workspace.name });
      return context.body(null, 204);
    },
  });
}

export function readCacheName(context: RouteContext) {
  return readId(() => parseCacheName(context.req.param("cache") ?? ""));
}
