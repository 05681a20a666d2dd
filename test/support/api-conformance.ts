/**
 * Holds answers of the REST API to what their routes declare, and so to what `/openapi.json` says. Every request that a
 * test makes through the coordinator of its process passes here.
 */
import { z } from "zod";
import { problemSchema } from "../../src/api/problem.ts";
import { createApiRoutes } from "../../src/server/app.ts";
import { type Answer, BYTES, EVENT_STREAM, NOTHING, type Route } from "../../src/server/routes/route.ts";
import type { Services } from "../../src/server/services.ts";

export type CheckAnswer = (request: Request, answer: Response) => Promise<void>;

/** @throws Error of the first thing that is not as it is declared */
export function createAnswerCheck(services: Services): CheckAnswer {
  const routes = createApiRoutes(services).map((route) => ({ route, pattern: toPattern(route) }));
  return async (request, answer) => {
    const { pathname } = new URL(request.url);
    if (!pathname.startsWith("/api/v1/") || request.signal.aborted) return;
    const path = pathname.slice("/api/v1".length);
    const found = routes.find(({ route, pattern }) => route.method === request.method && pattern.test(path));
    const where = `${request.method} ${path} → ${answer.status}`;
    if (answer.status >= 400 && found?.route.answers[answer.status] === undefined) {
      problemSchema.parse(await answer.clone().json());
      return;
    }
    const declared = found?.route.answers[answer.status];
    if (declared === undefined) throw new Error(`${where}: its route does not declare such an answer`);
    await checkBody(declared, answer, where);
  };
}

async function checkBody(declared: Answer, answer: Response, where: string): Promise<void> {
  const type = answer.headers.get("content-type") ?? "";
  switch (declared) {
    case NOTHING: {
      if ((await answer.clone().text()) !== "") throw new Error(`${where}: has a body`);
      return;
    }
    case BYTES:
    case EVENT_STREAM: {
      if (!type.startsWith(declared)) throw new Error(`${where}: is ${type}, not ${declared}`);
      return;
    }
    default: {
      const parsed = strict(declared).safeParse(await answer.clone().json());
      if (!parsed.success) throw new Error(`${where}: ${z.prettifyError(parsed.error)}`);
    }
  }
}

/** Fields that the schema does not know are faults of the coordinator, although clients ignore them. */
function strict(schema: z.ZodType): z.ZodType {
  return schema instanceof z.ZodObject ? schema.strict() : schema;
}

function toPattern({ path }: Route): RegExp {
  return new RegExp(`^${path.replaceAll(/:\w+/g, "[^/]+")}$`);
}
