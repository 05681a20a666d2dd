/** /api/v1/workspaces: make, list, show, set, rename, delete. */
import { z } from "zod";
import {
  deletedWorkspaceSchema,
  nameWorkspaceSchema,
  updateWorkspaceSchema,
  type WorkspaceDto,
  workspaceListSchema,
  workspaceSchema,
} from "../../api/workspaces.ts";
import { parseWorkspaceName } from "../../names.ts";
import type { Right } from "../access/authorization.ts";
import { workspaceToDto } from "../convert.ts";
import { findWorkspaceById, saveWorkspace, type WorkspaceRow } from "../database/workspaces.ts";
import type { Services } from "../services.ts";
import { deleteWorkspace } from "../workspaces/deletion.ts";
import { changeWorkspaceSettings } from "../workspaces/settings.ts";
import { createWorkspace, renameWorkspace } from "../workspaces/workspaces.ts";
import {
  findTargetWorkspace,
  noteAct,
  type RouteContext,
  readId,
  requireOperator,
  visibleWorkspaces,
} from "./context.ts";
import { LIST_PAGES, pageOf } from "./pages.ts";
import { defineRoute, type Route } from "./route.ts";

/** What may be lost is deleted only by who says so. */
export const FORCE_QUERY = z.object({ force: z.enum(["true", "false"]).optional() });

export function createWorkspaceRoutes(services: Services): readonly Route[] {
  return [
    createOne(services),
    listAll(services),
    show(services),
    change(services),
    rename(services),
    deleteOne(services),
  ];
}

function createOne(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/workspaces", right: "operate" },
    summary: "Make a workspace, with a cache of the same name",
    body: nameWorkspaceSchema,
    answers: { 201: workspaceSchema },
    async handle(context, { readBody }) {
      requireOperator(context);
      const { name } = await readBody();
      const workspace = await createWorkspace(services, name);
      noteAct(context, { workspaceId: workspace.id, target: `workspace ${name}`, effect: "made" });
      services.log.info("workspace made", { name });
      return context.json(await workspaceToDto(services, workspace), 201);
    },
  });
}

function listAll(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/workspaces", right: "watch" },
    summary: "List the workspaces that the caller may see, by name",
    query: z.object(LIST_PAGES),
    answers: { 200: workspaceListSchema },
    async handle(context, { query }) {
      const visible = [...(await visibleWorkspaces(services, context, "watch"))];
      const { page, next } = pageOf(visible, { ...query, cursorOf: ([, name]) => [name] });
      const workspaces: WorkspaceDto[] = [];
      for (const [id] of page) {
        const row = await findWorkspaceById(services.database, id);
        if (row !== null) workspaces.push(await workspaceToDto(services, row));
      }
      return context.json({ workspaces, next });
    },
  });
}

function show(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/workspaces/:workspace", right: "watch" },
    summary: "Show a workspace, its caches and its settings",
    answers: { 200: workspaceSchema },
    async handle(context) {
      return context.json(await workspaceToDto(services, await findNamed(services, context, "watch")));
    },
  });
}

function change(services: Services): Route {
  return defineRoute({
    ...{ method: "PATCH", path: "/workspaces/:workspace", right: "administrate" },
    summary: "Change what holds in a workspace where a rollout does not say otherwise",
    body: updateWorkspaceSchema,
    answers: { 200: workspaceSchema },
    async handle(context, { readBody }) {
      const workspace = await findNamed(services, context, "administrate");
      const wanted = await readBody();
      const changed = await services.database.transaction().execute(async (transaction) => {
        const row = (await findWorkspaceById(transaction, workspace.id)) ?? workspace;
        const settings = changeWorkspaceSettings(row, wanted);
        await saveWorkspace(transaction, row.id, { settings });
        return { ...row, settings };
      });
      noteAct(context, { effect: `settings: ${changed.settings}` });
      services.log.info("workspace changed", { name: workspace.name, settings: changed.settings });
      return context.json(await workspaceToDto(services, changed));
    },
  });
}

function rename(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/workspaces/:workspace/rename", right: "operate" },
    summary: "Rename a workspace; agents and tokens keep working, and its caches keep their names",
    body: nameWorkspaceSchema,
    answers: { 200: workspaceSchema },
    async handle(context, { readBody }) {
      const workspace = await findNamed(services, context, "operate");
      const { name } = await readBody();
      const renamed = await renameWorkspace(services, { workspace, name });
      noteAct(context, { effect: `renamed to ${name}` });
      services.log.info("workspace renamed", { from: workspace.name, to: name });
      return context.json(await workspaceToDto(services, renamed));
    },
  });
}

function deleteOne(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: "/workspaces/:workspace", right: "operate" },
    summary: "Delete a workspace; with agents bound to it only by force, which disconnects and forgets them",
    query: FORCE_QUERY,
    answers: { 200: deletedWorkspaceSchema },
    async handle(context, { query }) {
      const workspace = await findNamed(services, context, "operate");
      const deleted = await deleteWorkspace(services, { workspace, force: query.force === "true" });
      const { agents, tokens, caches, deployments } = deleted;
      const what = `${agents} agents, ${tokens} tokens, ${caches.length} caches, ${deployments} deployments`;
      noteAct(context, { effect: `deleted with ${what}` });
      services.log.info("workspace deleted", { name: deleted.name, agents: deleted.agents, tokens: deleted.tokens });
      return context.json(deleted);
    },
  });
}

/** The workspace that the path names as `:workspace`. @throws NixdeployError `not-found` · `usage` */
export async function findNamed(services: Services, context: RouteContext, right: Right): Promise<WorkspaceRow> {
  const name = readId(() => parseWorkspaceName(context.req.param("workspace") ?? ""));
  noteAct(context, { target: `workspace ${name}` });
  return await findTargetWorkspace(services, context, { name, right });
}
