/**
 * Errors of the network, and answers that are errors, as a NixdeployError that says what happened. Pure.
 *
 *   status   400 → usage · 401, 403 → denied · 404 → not-found · 409 → conflict · 422 → refused
 *            408, 425, 429, 502, 503, 504 → unreachable, worth another try · everything else → remote
 */
import { type Problem, problemSchema } from "./api.ts";
import { type ErrorKind, NixdeployError, type NixdeployErrorOptions } from "./errors.ts";

/** Whether the same request may succeed a little later. */
export class HttpFailure extends NixdeployError {
  readonly isTransient: boolean;

  constructor(kind: ErrorKind, message: string, options: NixdeployErrorOptions & { readonly isTransient: boolean }) {
    super(kind, message, options);
    this.isTransient = options.isTransient;
  }
}

const STATUS_KINDS: Readonly<Record<number, ErrorKind>> = {
  400: "usage",
  401: "denied",
  403: "denied",
  404: "not-found",
  408: "unreachable",
  409: "conflict",
  422: "refused",
  425: "unreachable",
  429: "unreachable",
  502: "unreachable",
  503: "unreachable",
  504: "unreachable",
};

export function kindOfStatus(status: number): ErrorKind {
  return STATUS_KINDS[status] ?? "remote";
}

export type Answer = {
  readonly status: number;
  readonly contentType: string;
  /** Where a redirect points; null without one. */
  readonly location: string | null;
  readonly text: string;
};

/** For an answer that is no success. @param source what was asked, as it is named in messages */
export function failureOfAnswer(answer: Answer, source: string): HttpFailure {
  const { status } = answer;
  const problem = parseProblem(answer);
  const kind = kindOfStatus(status);
  const isTransient = kind === "unreachable";
  if (problem !== null) {
    const { title, detail, hint, errors } = problem;
    return new HttpFailure(kind, detail === undefined ? title : `${title}: ${detail}`, {
      isTransient,
      ...(hint === undefined ? {} : { hint }),
      ...(errors === undefined ? {} : { details: errors }),
    });
  }
  const target = status >= 300 && status < 400 ? URL.parse(answer.location ?? "") : null;
  if (target !== null) {
    const hint = `Is ${target.origin} the coordinator's address?`;
    return new HttpFailure("remote", `cannot use ${source}: it redirects to ${target.origin}`, { isTransient, hint });
  }
  if (kind === "unreachable" || kind === "denied") {
    return new HttpFailure(kind, `cannot use ${source}: it answered ${describeAnswer(answer)}`, {
      isTransient,
      hint: "That answer came from something in front of the coordinator, a reverse proxy perhaps.",
    });
  }
  return notACoordinator(answer, source);
}

/** For an answer that should be JSON of ours and is not. */
export function notACoordinator(answer: Answer, source: string): HttpFailure {
  return new HttpFailure("remote", `cannot use ${source}: it answered ${describeAnswer(answer)}`, {
    isTransient: false,
    hint: "Is it a nixdeploy coordinator? Check NIXDEPLOY_URL or --url.",
  });
}

function parseProblem({ contentType, text }: Answer): Problem | null {
  if (!contentType.includes("json")) {
    return null;
  }
  try {
    const parsed = problemSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : null;
  } catch {
    // Not JSON after all: then it is no word of a coordinator.
    return null;
  }
}

function describeAnswer({ status, contentType }: Answer): string {
  const type = contentType.split(";")[0]?.trim() ?? "";
  return `HTTP ${status}${type === "" ? "" : ` (${type})`}`;
}

const REASONS: readonly { readonly codes: RegExp; readonly reason: string; readonly hint?: string }[] = [
  { codes: /^ECONNREFUSED$/, reason: "the connection was refused", hint: "Is `nixdeploy serve` running there?" },
  { codes: /^ENOENT$/, reason: "there is no such socket", hint: "Is `nixdeploy serve` running?" },
  { codes: /^EACCES$/, reason: "permission denied" },
  { codes: /^(ENOTFOUND|EAI_NODATA|DNS_.*)$/, reason: "its name is unknown (DNS)" },
  { codes: /^EAI_AGAIN$/, reason: "the name service does not answer" },
  { codes: /^(ETIMEDOUT|UND_ERR_CONNECT_TIMEOUT)$/, reason: "it does not answer" },
  { codes: /^(EHOSTUNREACH|ENETUNREACH|ENETDOWN)$/, reason: "there is no route to it" },
  { codes: /^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/, reason: "the connection broke" },
  { codes: /^(EPROTO|ERR_SSL_.*)$/, reason: "it does not speak TLS there", hint: "Is the address http:// instead?" },
];
const CERTIFICATE_CODES = /^(CERT_.*|.*_CERT|.*_CERT_.*|UNABLE_TO_.*|ERR_TLS_CERT_ALTNAME_INVALID|INVALID_CA)$/;

/** For a request that got no answer, or not all of it. @param error what the HTTP library threw */
export function failureOfConnection(error: unknown, source: string): HttpFailure {
  const code = codeOf(error);
  if (CERTIFICATE_CODES.test(code)) {
    return new HttpFailure("unreachable", `cannot reach ${source}: its certificate is not trusted (${code})`, {
      isTransient: false,
      hint: "For an authority of your own, set SSL_CERT_FILE or NIX_SSL_CERT_FILE to a bundle that has it.",
      cause: error,
    });
  }
  const known = REASONS.find(({ codes }) => codes.test(code));
  const reason = known?.reason ?? (code === "" ? "the connection failed" : `the connection failed (${code})`);
  return new HttpFailure("unreachable", `cannot reach ${source}: ${reason}`, {
    isTransient: true,
    cause: error,
    ...(known?.hint === undefined ? {} : { hint: known.hint }),
  });
}

export function silentFailure(source: string, durationMs: number): HttpFailure {
  const seconds = Math.ceil(durationMs / 1000);
  return new HttpFailure("unreachable", `cannot reach ${source}: nothing came for ${seconds} s`, { isTransient: true });
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) {
    return "";
  }
  const own = "code" in error ? error.code : undefined;
  return typeof own === "string" ? own : codeOf(error.cause);
}
