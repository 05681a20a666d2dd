/** Errors as problem+json (RFC 9457). Details of our own bugs stay in the log; the client gets a number to quote. */
import type { Problem } from "../api/problem.ts";
import { NixdeployError, toHttpStatus } from "../errors.ts";
import type { Logger } from "../log.ts";
import { explainDatabaseTrouble } from "./database/database-error.ts";

export const PROBLEM_TYPE = "application/problem+json";

/** The answer for anything thrown while a request was handled. */
export function problemResponse(thrown: unknown, log: Logger): Response {
  const error = explainDatabaseTrouble(thrown) ?? thrown;
  if (error instanceof NixdeployError) {
    const status = toHttpStatus(error.kind);
    if (error.kind === "unreachable") log.warn("request put off", { reason: error.message });
    else if (status >= 500) log.error("request failed", { reason: error.message });
    return formatProblem({
      title: error.message,
      status,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.details.length === 0 ? {} : { errors: [...error.details] }),
    });
  }
  const reference = crypto.randomUUID();
  log.error("request failed: this is a bug", {
    reference,
    reason: String(error instanceof Error ? error.stack : error),
  });
  return formatProblem({
    title: "The coordinator failed to handle the request",
    status: 500,
    detail: `See its log for ${reference}`,
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

/** Not there, or not for you: nobody learns which. */
export function notFound(what: string, hint?: string): NixdeployError {
  return new NixdeployError("not-found", `cannot find ${what}: it does not exist, or this token may not see it`, {
    ...(hint === undefined ? {} : { hint }),
  });
}
