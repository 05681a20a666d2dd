/** /api/v1/caches: make, list, show, set, delete. */
import { z } from "zod";
import {
  type CacheDto,
  cacheListSchema,
  cacheSchema,
  createCacheSchema,
  deletedCacheSchema,
  updateCacheSchema,
} from "../../api/caches.ts";
import { rotateCacheKey } from "../cache/rotate-cache-key.ts";
import { cacheToDto } from "../convert.ts";
import { listWorkspaceCaches } from "../database/caches.ts";
import type { Services } from "../services.ts";
import { deleteCache } from "../workspaces/deletion.ts";
import { changeCache, createCache } from "../workspaces/workspaces.ts";
import { findTargetCache, findTargetWorkspace, listOfVisible, noteAct } from "./context.ts";
import { LIST_PAGES, pageOf, sortKeyOf } from "./pages.ts";
import { defineRoute, type Route } from "./route.ts";
import { FORCE_QUERY } from "./workspaces.ts";

export function createCacheSettingsRoutes(services: Services): readonly Route[] {
  return [
    createOne(services),
    listAll(services),
    show(services),
    change(services),
    rotateKey(services),
    deleteOne(services),
  ];
}

function createOne(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/caches", right: "operate" },
    summary: "Make a further cache for a workspace, with a key of its own",
    body: createCacheSchema,
    answers: { 201: cacheSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const workspace = await findTargetWorkspace(services, context, { name: request.workspace, right: "operate" });
      const cache = await createCache(services, {
        name: request.name,
        workspaceId: workspace.id,
        isPublic: request.public ?? false,
      });
      await services.toldCaches.tellAll(workspace.id);
      noteAct(context, { target: `cache ${cache.name}`, effect: "made" });
      services.log.info("cache made", { cache: cache.name, workspace: workspace.name });
      return context.json(await cacheToDto(cache, services), 201);
    },
  });
}

function listAll(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/caches", right: "read-cache" },
    summary: "List the caches that the caller may read, by workspace, the default of each first",
    query: z.object({ workspace: z.string().optional(), ...LIST_PAGES }),
    answers: { 200: cacheListSchema },
    async handle(context, { query }) {
      const list = (id: string) => listWorkspaceCaches(services.database, id);
      const { page, next } = pageOf(await listOfVisible(services, context, { right: "read-cache", list }), {
        ...query,
        cursorOf: ({ row, workspace }) => {
          return [workspace, row.is_default === 1 ? "0" : "1", sortKeyOf(row.created_ms), row.name];
        },
      });
      const caches: CacheDto[] = [];
      for (const { row } of page) caches.push(await cacheToDto(row, services));
      return context.json({ caches, next });
    },
  });
}

function show(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/caches/:cache", right: "read-cache" },
    summary: "Say where a cache is, and which keys it signs with",
    answers: { 200: cacheSchema },
    async handle(context) {
      const cache = await findTargetCache(services, context, "read-cache");
      return context.json(await cacheToDto(cache, services));
    },
  });
}

function change(services: Services): Route {
  return defineRoute({
    ...{ method: "PATCH", path: "/caches/:cache", right: "administrate" },
    summary: "Make a cache public or private, or the default of its workspace",
    body: updateCacheSchema,
    answers: { 200: cacheSchema },
    async handle(context, { readBody }) {
      const cache = await findTargetCache(services, context, "administrate");
      const wanted = await readBody();
      const changed = await changeCache(services, cache, wanted);
      if (wanted.default === true) await services.toldCaches.tellAll(cache.workspace_id);
      const { is_public: isPublic, is_default: isDefault } = changed;
      const access = wanted.public === undefined ? [] : [wanted.public ? "public" : "private"];
      noteAct(context, { effect: `made ${[...access, ...(wanted.default ? ["the default"] : [])].join(" and ")}` });
      services.log.info("cache changed", { cache: cache.name, public: isPublic === 1, default: isDefault === 1 });
      return context.json(await cacheToDto(changed, services));
    },
  });
}

function rotateKey(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/caches/:cache/key-rotations", right: "administrate" },
    summary: "Give a cache another signing key, for which the old one vouches",
    answers: { 201: cacheSchema },
    async handle(context) {
      const cache = await findTargetCache(services, context, "administrate");
      const rotated = await rotateCacheKey(services, cache);
      services.narInfos.forgetSignatures(cache.id);
      await services.toldCaches.tellAll(cache.workspace_id);
      const dto = await cacheToDto(rotated, services);
      noteAct(context, { effect: `new key ${dto.keyFingerprints.join(" ")}` });
      services.log.info("cache key rotated", { cache: cache.name, key: dto.publicKeys.join(" ") });
      return context.json(dto, 201);
    },
  });
}

function deleteOne(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: "/caches/:cache", right: "administrate" },
    summary: "Delete a cache that is not the default; with paths in it only by force",
    query: FORCE_QUERY,
    answers: { 200: deletedCacheSchema },
    async handle(context, { query }) {
      const cache = await findTargetCache(services, context, "administrate");
      const deleted = await deleteCache(services, { cache, force: query.force === "true" });
      await services.toldCaches.tellAll(cache.workspace_id);
      noteAct(context, { effect: `deleted with ${deleted.paths} paths` });
      services.log.info("cache deleted", { cache: deleted.name, paths: deleted.paths });
      return context.json(deleted);
    },
  });
}
