/** Errors as problem+json (RFC 9457). Details of our own bugs stay in the log; the client gets the request's id to quote. */
import { type Problem, problemSchema } from "../api/problem.ts";
import { NixdeployError, toHttpStatus } from "../errors.ts";
import type { Logger } from "../log.ts";
import { explainDatabaseTrouble } from "./database/database-error.ts";

export const PROBLEM_TYPE = "application/problem+json";

/** The answer for anything thrown while a request was handled. */
export function problemResponse(
  thrown: unknown,
  { log, requestId }: { readonly log: Logger; readonly requestId: string },
): Response {
  const error = explainDatabaseTrouble(thrown) ?? thrown;
  if (error instanceof NixdeployError) {
    const status = toHttpStatus(error.kind);
    if (error.kind === "unreachable") log.warn("request put off", { requestId, reason: error.message });
    else if (status >= 500) log.error("request failed", { requestId, reason: error.message });
    return formatProblem({
      title: error.message,
      status,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.details.length === 0 ? {} : { errors: [...error.details] }),
    });
  }
  log.error("request failed: this is a bug", {
    requestId,
    reason: String(error instanceof Error ? error.stack : error),
  });
  return formatProblem({
    title: "The coordinator failed to handle the request",
    status: 500,
    detail: `See its log for ${requestId}`,
  });
}

export function formatProblem(problem: Problem, headers: Readonly<Record<string, string>> = {}): Response {
  return Response.json(problem, {
    status: problem.status,
    headers: { "content-type": PROBLEM_TYPE, "cache-control": "no-store", ...headers },
  });
}

/** Without valid credentials: the same answer whatever was asked for. */
export function unauthorized(scheme: "Bearer" | "Basic"): Response {
  return formatProblem(
    {
      title: "cannot log in: the token is missing, unknown here, expired or revoked",
      status: 401,
      hint: "Make one with `nixdeploy token create`; is it a token of this coordinator?",
    },
    {
      "www-authenticate": scheme === "Basic" ? 'Basic realm="nixdeploy", charset="UTF-8"' : 'Bearer realm="nixdeploy"',
    },
  );
}

/** Without valid credentials, once more, from an address that sends too many. */
export function tooManyFailedLogins(retryAfterMs: number): Response {
  const seconds = Math.ceil(retryAfterMs / 1_000);
  return formatProblem(
    {
      title: `cannot log in: the token is no good, and too many such came from this address; try again in ${seconds} s`,
      status: 429,
      hint: "A token that is good is taken at once.",
    },
    { "retry-after": String(seconds) },
  );
}

/** Not there, or not for you: nobody learns which. */
export function notFound(what: string, hint?: string): NixdeployError {
  return new NixdeployError("not-found", `cannot find ${what}: it does not exist, or this token may not see it`, {
    ...(hint === undefined ? {} : { hint }),
  });
}

/** The same answer with more in it, if it is a problem. */
export async function addToProblem(response: Response, more: { readonly requestId: string }): Promise<Response> {
  if (response.headers.get("content-type") !== PROBLEM_TYPE || response.body === null) return response;
  const parsed = problemSchema.safeParse(await response.json());
  if (!parsed.success) throw new Error("an answer of ours is called a problem and is none");
  const { status, headers } = response;
  headers.delete("content-length");
  return Response.json({ ...parsed.data, ...more }, { status, headers });
}
