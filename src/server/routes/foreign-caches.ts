/** Caches of others, from which a workspace's agents may fetch: put, list, remove. */
import { z } from "zod";
import {
  type ForeignCacheDto,
  foreignCacheListSchema,
  foreignCacheSchema,
  saveForeignCacheSchema,
} from "../../api/caches.ts";
import { parseCacheName } from "../../names.ts";
import { foreignCacheToDto } from "../convert.ts";
import { listForeignCaches, removeForeignCache } from "../database/caches.ts";
import { removeKeyVouchers } from "../database/key-vouchers.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { putForeignCache } from "../workspaces/foreign-caches.ts";
import { noteAct, type RouteContext, readId, visibleWorkspaces } from "./context.ts";
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
    query: z.object({ workspace: z.string().optional() }),
    answers: { 200: foreignCacheListSchema },
    async handle(context) {
      const foreignCaches: ForeignCacheDto[] = [];
      for (const [id, name] of await visibleWorkspaces(services, context, "read-cache")) {
        const rows = await listForeignCaches(services.database, id);
        foreignCaches.push(...rows.map((row) => foreignCacheToDto(row, name)));
      }
      return context.json({ foreignCaches });
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
      if (!(await removeForeignCache(services.database, { workspace_id: workspace.id, name }))) {
        throw notFound(`the foreign cache ${name}`);
      }
      await removeKeyVouchers(services.database, { workspaceId: workspace.id, cacheName: name });
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
