/** What every route of the REST API needs: who is asking, for which workspace, with what body. */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { parseCacheName, parseWorkspaceName, type WorkspaceName } from "../../names.ts";
import type { Principal } from "../access/authentication.ts";
import { kindsThatMay, mayDo, type Right } from "../access/authorization.ts";
import { type CacheRow, findCache } from "../database/caches.ts";
import { findWorkspace, findWorkspaceById, listWorkspaces, type WorkspaceRow } from "../database/workspaces.ts";
import { notFound } from "../problem.ts";
import type { Visit } from "../requests/visit.ts";
import type { Services } from "../services.ts";

export type RouteEnv = {
  Bindings: Visit;
  Variables: { readonly principal: Principal; readonly act?: ActNote };
};
export type RouteContext = Context<RouteEnv>;
export const createRouter = () => new Hono<RouteEnv>();

/** What a handler knows of the act that it carries out, for the audit log. */
export type ActNote = {
  /** Where; default: the workspace of the caller's token. */
  readonly workspaceId?: string | null;
  /** What it was done to; default: the path. */
  readonly target?: string;
  /** What came of it, in a few words; default: the answer's status. */
  readonly effect?: string;
};

/** Adds to what the audit log will say of this request. */
export function noteAct(context: RouteContext, note: ActNote): void {
  context.set("act", { ...context.get("act"), ...note });
}

/** Stands before a handler: the request is counted under the pattern that this one was declared with. */
export const atRoute: MiddlewareHandler<RouteEnv> = async (context, next) => {
  context.env.route = routePath(context);
  return await next();
};

const DEFAULT_WORKSPACE = parseWorkspaceName("default");
const JSON_BYTES_MAX = 16 * 1024 * 1024;
/** Of a body; one that is something else has a fault in each of its thousands of items. */
const FAULTS_MAX = 20;
/** A path through the body may hold a key of any length. */
const FAULT_LENGTH_MAX = 500;

/** @throws NixdeployError `not-found` unless the caller may do it in every workspace */
export function requireOperator(context: RouteContext): void {
  if (!mayDo(context.get("principal"), "operate", "")) {
    throw notFound(new URL(context.req.url).pathname, hintForRight(context, "operate"));
  }
}

/** For a token of a kind that never has this right, whatever exists: which kind has. */
export function hintForRight(context: RouteContext, right: Right): string | undefined {
  const principal = context.get("principal");
  if (right === "operate" && principal.kind === "token") {
    return "It takes an admin token of no workspace: nixdeploy token create --kind admin --global, on the coordinator's host.";
  }
  const kinds = kindsThatMay(principal, right);
  if (principal.kind !== "token" || kinds.length === 0) return undefined;
  return `This token is of kind ${principal.tokenKind}; what was asked for takes one of kind ${kinds.join(" or ")}.`;
}

/** The body as the schema's value. @throws NixdeployError `usage` with its faults, the first of many */
export async function readBody<Schema extends z.ZodType>(
  context: RouteContext,
  schema: Schema,
): Promise<z.output<Schema>> {
  const text = await readText(context.req.raw);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new NixdeployError("usage", "cannot read the request: its body is not JSON", { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new NixdeployError("usage", "cannot read the request: its body has another shape", {
    details: describeFaults(parsed.error),
  });
}

function describeFaults({ issues }: z.ZodError): string[] {
  const faults = issues
    .slice(0, FAULTS_MAX)
    .map((issue) => `${issue.path.join(".") || "body"}: ${issue.message}`.slice(0, FAULT_LENGTH_MAX));
  return issues.length <= FAULTS_MAX ? faults : [...faults, `and ${issues.length - FAULTS_MAX} more`];
}

/** Counts what comes, since a body need not say its length. */
async function readText(request: Request): Promise<string> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of request.body ?? []) {
    total += chunk.length;
    if (total > JSON_BYTES_MAX) throw new NixdeployError("usage", "cannot read the request: its body is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/**
 * The workspace that a request is about: the one it names, else the one its token belongs to, else `default`.
 * @throws NixdeployError `not-found` when there is none or the caller lacks the right there
 */
export async function findTargetWorkspace(
  services: Services,
  context: RouteContext,
  target: { readonly name: WorkspaceName | undefined; readonly right: Right },
): Promise<WorkspaceRow> {
  const principal = context.get("principal");
  const ownId = principal.kind === "control" ? null : principal.workspaceId;
  const workspace =
    target.name === undefined && ownId !== null
      ? await findWorkspaceById(services.database, ownId)
      : await findWorkspace(services.database, target.name ?? DEFAULT_WORKSPACE);
  // In the same words, so that nobody learns that it exists.
  if (workspace === null || !mayDo(principal, target.right, workspace.id)) {
    throw notFound(
      `the workspace ${target.name ?? workspace?.name ?? DEFAULT_WORKSPACE}`,
      hintForRight(context, target.right),
    );
  }
  noteAct(context, { workspaceId: workspace.id });
  return workspace;
}

/** The cache that the path names as `:cache`. @throws NixdeployError `not-found`, also when the caller lacks the right there */
export async function findTargetCache(services: Services, context: RouteContext, right: Right): Promise<CacheRow> {
  const name = context.req.param("cache") ?? "";
  const cache = await findCache(
    services.database,
    readId(() => parseCacheName(name)),
  );
  if (cache === null || !mayDo(context.get("principal"), right, cache.workspace_id)) {
    throw notFound(`the cache ${name}`, hintForRight(context, right));
  }
  noteAct(context, { workspaceId: cache.workspace_id, target: `cache ${cache.name}` });
  return cache;
}

/** The workspaces in which the caller has this right, by id. @throws NixdeployError `not-found` when there is none */
export async function visibleWorkspaces(
  services: Services,
  context: RouteContext,
  right: Right,
): Promise<ReadonlyMap<string, WorkspaceName>> {
  const all = await listWorkspaces(services.database);
  const principal = context.get("principal");
  const visible = all.filter((workspace) => mayDo(principal, right, workspace.id));
  if (visible.length === 0) throw notFound(new URL(context.req.url).pathname, hintForRight(context, right));
  const wanted = context.req.query("workspace");
  if (wanted !== undefined && !visible.some(({ name }) => name === wanted)) throw notFound(`the workspace ${wanted}`);
  return new Map(
    visible.filter(({ name }) => wanted === undefined || wanted === name).map(({ id, name }) => [id, name]),
  );
}

/** What each workspace has in which the caller has the right, or the named one alone. */
export async function listOfVisible<Row>(
  services: Services,
  context: RouteContext,
  { right, list }: { readonly right: Right; readonly list: (workspaceId: string) => Promise<readonly Row[]> },
): Promise<readonly { readonly row: Row; readonly workspace: WorkspaceName }[]> {
  const listed: { readonly row: Row; readonly workspace: WorkspaceName }[] = [];
  for (const [id, workspace] of await visibleWorkspaces(services, context, right)) {
    for (const row of await list(id)) listed.push({ row, workspace });
  }
  return listed;
}

/** The named workspace, or else all in which the caller has the right. */
export async function workspaceIdsFor(
  services: Services,
  context: RouteContext,
  target: { readonly name: WorkspaceName | undefined; readonly right: Right },
): Promise<readonly string[]> {
  const { name, right } = target;
  if (name !== undefined) return [(await findTargetWorkspace(services, context, { name, right })).id];
  return [...(await visibleWorkspaces(services, context, right)).keys()];
}

/** @throws NixdeployError `usage` */
export function readId<Id>(parse: () => Id): Id {
  try {
    return parse();
  } catch (cause) {
    throw new NixdeployError("usage", cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
