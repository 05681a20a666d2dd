/**
 * A route of the REST API as a value: method, path, who may, what it takes and what it answers. From it come the handler
 * and the entry in `/openapi.json`, and the tests hold every answer to it.
 */
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import type { Right } from "../access/authorization.ts";
import type { Act, Auditor } from "../operations/audit.ts";
import { hideSecrets } from "../requests/visit.ts";
import { atRoute, createRouter, type RouteContext, readBody } from "./context.ts";

export type Route = {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Below `/api/v1`, parameters as `:name`. */
  readonly path: `/${string}`;
  /** A sentence without its full stop, for the reference. */
  readonly summary: string;
  /** What the caller must be allowed to do in the workspace of what it names. The handler asks, who has looked it up. */
  readonly right: Right;
  readonly query: z.ZodObject;
  /** Null: it takes none. */
  readonly body: z.ZodType | typeof BYTES | null;
  /** Of a route that is no GET: it changes nothing that anybody would ask for, so the audit log has no line of it. */
  readonly isNoAct?: true;
  /** By status. Every route besides answers failures as problem+json. */
  readonly answers: Readonly<Record<number, Answer>>;
  handle(context: RouteContext): Promise<Response>;
};

/** A schema stands for JSON. */
export type Answer = z.ZodType | typeof BYTES | typeof EVENT_STREAM | typeof NOTHING;

export const BYTES = "application/octet-stream";
export const EVENT_STREAM = "text/event-stream";
export const NOTHING = "nothing";

const STATUS_REFUSED = 400;

type Declared<Query extends z.ZodObject, Body extends z.ZodType> = Omit<Route, "query" | "body" | "handle"> & {
  /** Texts of the query string; what it does not name is ignored. */
  readonly query?: Query;
  readonly body?: Body | typeof BYTES;
  handle(
    context: RouteContext,
    request: {
      readonly query: z.output<Query>;
      /** @throws NixdeployError `usage` with the faults of the body, all at once */
      readBody(): Promise<z.output<Body>>;
    },
  ): Promise<Response>;
};

export function defineRoute<
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
  Body extends z.ZodType = z.ZodNever,
>(declared: Declared<Query, Body>): Route {
  const { query, body } = declared;
  return {
    ...declared,
    query: query ?? z.object({}),
    body: body ?? null,
    async handle(context) {
      return await declared.handle(context, {
        query: readQuery(context, query),
        readBody: async () => {
          if (body === undefined || body === BYTES) throw new Error(`${declared.path} declares no JSON body`);
          return await readBody(context, body);
        },
      });
    },
  };
}

export function mountRoutes(routes: readonly Route[], auditor: Auditor) {
  const router = createRouter();
  for (const route of routes) {
    router.on(route.method, route.path, atRoute, async (context) => {
      const answer = await route.handle(context);
      if (isAct(route) && answer.status < STATUS_REFUSED) await auditor.record(actOf(route, context, answer));
      return answer;
    });
  }
  return router;
}

/** Whether the audit log has a line of every success of this route. */
export function isAct({ method, isNoAct }: Pick<Route, "method" | "isNoAct">): boolean {
  return method !== "GET" && isNoAct !== true;
}

function actOf(route: Route, context: RouteContext, answer: Response): Act {
  const principal = context.get("principal");
  const note = context.get("act");
  return {
    principal,
    visit: context.env,
    act: `${route.method} ${route.path}`,
    workspaceId: note?.workspaceId ?? (principal.kind === "control" ? null : principal.workspaceId),
    target: note?.target ?? hideSecrets(new URL(context.req.url).pathname.replace(/^\/api\/v1\//, "")),
    effect: note?.effect ?? String(answer.status),
  };
}

/** A whole number of the query string. */
export function countParam(limits: { readonly fallback: number; readonly max: number }) {
  const { fallback, max } = limits;
  return z
    .string()
    .optional()
    .meta({ type: "integer", minimum: 0, maximum: max, default: fallback })
    .transform((text, context) => {
      const value = text === undefined ? fallback : /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
      if (value <= max) return value;
      context.addIssue({ code: "custom", message: `it must be a whole number up to ${max}` });
      return z.NEVER;
    });
}

function readQuery<Query extends z.ZodObject>(context: RouteContext, schema: Query | undefined): z.output<Query> {
  const parsed = (schema ?? z.object({})).safeParse(context.req.query());
  // Its own type, whatever the generic one is called.
  if (parsed.success) return parsed.data as z.output<Query>;
  const [issue] = parsed.error.issues;
  throw new NixdeployError("usage", `cannot read ${issue?.path.join(".") ?? "the query"}: ${issue?.message ?? ""}`);
}
