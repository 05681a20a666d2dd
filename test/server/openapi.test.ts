/** /openapi.json: valid by a validator of others, complete, and what it says of answers holds (api-conformance.ts does that in every test). */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { createApiRoutes } from "../../src/server/app.ts";
import { type createOpenApi, operationIdOf } from "../../src/server/openapi.ts";
import { createTestCoordinator, type TestCoordinator } from "../support/coordinator.ts";

type Operation = {
  readonly operationId: string;
  readonly parameters: readonly { readonly name: string; readonly in: string; readonly required: boolean }[];
  readonly requestBody?: { readonly content: object };
  readonly responses: Readonly<Record<string, object>>;
};

let server: TestCoordinator;
let document: ReturnType<typeof createOpenApi>;
beforeAll(async () => {
  server = await createTestCoordinator();
  document = JSON.parse(await (await server.fetch("/openapi.json", { token: null })).text());
});
afterAll(() => server[Symbol.asyncDispose]());

function operationOf(method: string, path: string): Operation {
  const paths = document["paths"] as Record<string, Record<string, Operation>>;
  const operation = paths[path]?.[method];
  if (operation === undefined) throw new Error(`no ${method} ${path}`);
  return operation;
}

test("is a valid OpenAPI 3.1 document", async () => {
  const result = await new Validator().validate(structuredClone(document));
  expect(result).toEqual({ valid: true });
});

test("every reference leads to something, and every component is used", () => {
  const text = JSON.stringify(document);
  const references = new Set([...text.matchAll(/"\$ref":"#\/components\/(\w+\/\w+)"/g)].map(([, name]) => name));
  const components = document["components"] as { schemas: object; responses: object };
  const there = [
    ...Object.keys(components.schemas).map((name) => `schemas/${name}`),
    ...Object.keys(components.responses).map((name) => `responses/${name}`),
  ];
  expect([...references].sort()).toEqual(there.sort());
  expect(text).not.toContain("$defs");
});

test("has every route, each under a name of its own", () => {
  const routes = createApiRoutes(server.coordinator.services);
  const names = routes.map(operationIdOf);
  expect(new Set(names).size).toBe(routes.length);
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    expect(operationOf(route.method.toLowerCase(), path).operationId).toBe(operationIdOf(route));
  }
});

test("says where parameters stand, and which must be there", () => {
  const { parameters } = operationOf("put", "/caches/{cache}/nars/{narHash}");
  expect(parameters.map(({ name, in: place, required }) => `${place} ${name} ${required}`)).toEqual([
    "path cache true",
    "path narHash true",
    "query upload true",
    "query offset false",
    "query narSize false",
    "query fileHash false",
  ]);
});

test("a list that is too long for its own parser is described as what it is", () => {
  const { requestBody } = operationOf("post", "/caches/{cache}/missing");
  expect(JSON.stringify(requestBody)).toContain('"type":"array","items":{"type":"string"},"maxItems":5000');
});
