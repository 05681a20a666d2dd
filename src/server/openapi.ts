/**
 * `/openapi.json`: the REST API described for generators and people, made from the routes and the schemas that parse its
 * requests. Schemas with an `id` in their meta become components.
 *
 * Format: OpenAPI 3.1 (JSON Schema 2020-12).
 */
import { z } from "zod";
import { problemSchema } from "../api/problem.ts";
import type { Right } from "./access/authorization.ts";
import { PROBLEM_TYPE } from "./problem.ts";
import { type Answer, BYTES, EVENT_STREAM, NOTHING, type Route } from "./routes/route.ts";

const STATUS_WORDS: Readonly<Record<number, string>> = {
  200: "Done",
  201: "Made",
  204: "Done; there is nothing to say",
  409: "Not from there: the answer says where to go on",
};
const RIGHT_WORDS: Readonly<Record<Right, string>> = {
  operate: "Takes an admin token that is good for every workspace.",
  administrate: "Takes an admin token.",
  activate: "Takes an activate or admin token.",
  watch: "Takes a read, activate or admin token.",
  push: "Takes a push or admin token.",
  "read-cache": "Takes any token of the workspace but one for agents.",
  identify: "Takes any token.",
};

type JsonObject = { readonly [name: string]: unknown };
type Components = Map<string, unknown>;

/** @param version of the program @param url where the API is, without `/api/v1` */
export function createOpenApi(
  routes: readonly Route[],
  about: { readonly version: string; readonly url: string },
): JsonObject {
  const components: Components = new Map();
  const problem = {
    description: "Not done",
    content: { [PROBLEM_TYPE]: { schema: toSchema(problemSchema, components) } },
  };
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: describeRoute(route, components) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "nixdeploy coordinator",
      version: about.version,
      description:
        "Everything that the command line does. Who lacks the right to something is answered 404, as if it were not there.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: `${about.url}/api/v1` }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "A token of `nixdeploy token create`." },
      },
      responses: { problem },
      schemas: Object.fromEntries([...components].sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}

function describeRoute(route: Route, components: Components): JsonObject {
  const answers = Object.entries(route.answers).map(([status, answer]) => [
    status,
    { description: STATUS_WORDS[Number(status)] ?? "", ...describeContent(answer, components) },
  ]);
  return {
    operationId: operationIdOf(route),
    summary: route.summary,
    description: RIGHT_WORDS[route.right],
    parameters: [...describePath(route.path), ...describeQuery(route.query, components)],
    ...(route.body === null ? {} : { requestBody: { required: true, ...describeContent(route.body, components) } }),
    responses: { ...Object.fromEntries(answers), default: { $ref: "#/components/responses/problem" } },
  };
}

/** `GET /rollouts/:id/follow` → `getRolloutsIdFollow`; never changes while the route does not. */
export function operationIdOf({ method, path }: Pick<Route, "method" | "path">): string {
  const words = path.split(/[^\w]+/).filter((word) => word !== "");
  return method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}

function describePath(path: string): JsonObject[] {
  return [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    ...{ name, in: "path", required: true, schema: { type: "string" } },
  }));
}

function describeQuery(query: z.ZodObject, components: Components): JsonObject[] {
  return Object.entries(query.shape).map(([name, schema]) => {
    const required = !z.safeParse(schema, undefined).success;
    return { name, in: "query", required, schema: toSchema(schema, components) };
  });
}

function describeContent(answer: Answer, components: Components): JsonObject {
  switch (answer) {
    case NOTHING:
      return {};
    case BYTES:
    case EVENT_STREAM:
      return { content: { [answer]: {} } };
    default:
      return { content: { "application/json": { schema: toSchema(answer, components) } } };
  }
}

/** As it travels: what our schemas make of it after parsing is nobody else's business. */
function toSchema(schema: z.core.$ZodType, components: Components): unknown {
  const { $schema, $defs, ...described } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  for (const [name, definition] of Object.entries($defs ?? {})) components.set(name, renameReferences(definition));
  return renameReferences(described);
}

function renameReferences(schema: unknown): unknown {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/'));
}
