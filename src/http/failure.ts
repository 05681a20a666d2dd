/**
 * Errors of the network, and answers that are errors, as a NixdeployError that says what happened. Pure.
 *
 *   status   400 → usage · 401, 403 → denied · 404 → not-found · 409 → conflict · 422 → refused
 *            408, 425, 429, 502, 503, 504 → unreachable, worth another try · everything else → remote
 */
import { type Problem, problemSchema } from "../api/problem.ts";
import { type ErrorKind, NixdeployError, type NixdeployErrorOptions } from "../errors.ts";

type HttpFailureOptions = NixdeployErrorOptions & {
  readonly isTransient: boolean;
  readonly isForeign?: boolean;
  readonly mayHaveArrived?: boolean;
};

export class HttpFailure extends NixdeployError {
  /** Whether the same request may succeed a little later. */
  readonly isTransient: boolean;
  /** It was no coordinator that answered, but something that stands before it and may step aside again. */
  readonly isForeign: boolean;
  /** The request may have been carried out, and only its answer was lost. */
  readonly mayHaveArrived: boolean;

  constructor(kind: ErrorKind, message: string, options: HttpFailureOptions) {
    super(kind, message, options);
    this.isTransient = options.isTransient;
    this.isForeign = options.isForeign ?? false;
    this.mayHaveArrived = options.mayHaveArrived ?? false;
  }
}

/** The other side, as messages name it. */
export type Peer = { readonly source: string; readonly isThroughProxy: boolean };

/** @param proxy its address; never shown with the login that it may contain */
export function nameSource(address: string, proxy: string | null): Peer {
  if (proxy === null) return { source: address, isThroughProxy: false };
  return { source: `${address} through the proxy ${new URL(proxy).origin}`, isThroughProxy: true };
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

/** A proxy passed the request on, perhaps. */
const GATEWAY_STATUSES: readonly number[] = [502, 504];

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
  const isRedirect = status >= 300 && status < 400 && answer.location !== null;
  const target = isRedirect ? URL.parse(answer.location ?? "", source) : null;
  if (target !== null) {
    const isElsewhere = target.origin !== URL.parse(source)?.origin;
    const where = isElsewhere ? target.origin : target.pathname;
    const hint = isElsewhere ? `Is ${guessAddress(target)} the coordinator's address?` : HINT_ADDRESS;
    return new HttpFailure("remote", `cannot use ${source}: it redirects to ${where}`, { isTransient, hint });
  }
  if (status === 413) {
    return new HttpFailure("remote", `cannot use ${source}: it answered ${describeAnswer(answer)}, too large`, {
      isTransient,
      hint: "A proxy in front of the coordinator must take uploads of 32 MiB (nginx: client_max_body_size 32m).",
    });
  }
  if (kind === "unreachable" || kind === "denied") {
    return new HttpFailure(kind, `cannot use ${source}: it answered ${describeAnswer(answer)}`, {
      isTransient,
      mayHaveArrived: GATEWAY_STATUSES.includes(status),
      hint: "That answer came from something in front of the coordinator, a reverse proxy perhaps.",
    });
  }
  return notACoordinator(answer, source);
}

/** For an answer that should be JSON of ours and is not. */
export function notACoordinator(answer: Answer, source: string): HttpFailure {
  const isPage = isWebPage(answer.contentType);
  const what = `${describeAnswer(answer)}${isPage ? ", a web page" : ""}`;
  return new HttpFailure("remote", `cannot use ${source}: it answered ${what}`, {
    isTransient: false,
    isForeign: answer.status !== 404,
    hint: `Is it a nixdeploy coordinator? ${isPage ? "A network that wants a login answers so, too; else check" : "Check"} NIXDEPLOY_URL or --url.`,
  });
}

/** A coordinator sends none where one of its own answers is expected. */
export function isWebPage(contentType: string): boolean {
  return /^\s*(text\/html|application\/xhtml\+xml)\b/i.test(contentType);
}

/** Where an API call is redirected to, without the call's own path: what the coordinator's address should have been. */
export function guessAddress({ origin, pathname }: URL): string {
  const base = /^(.*?)\/(?:api\/v1|cache)\//.exec(pathname)?.[1] ?? "";
  return `${origin}${base}`;
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

const HINT_ADDRESS = "Is it a nixdeploy coordinator? Check NIXDEPLOY_URL or --url.";

/** The connection was there. */
const BROKEN_CODES = /^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/;
const REASONS: readonly { readonly codes: RegExp; readonly reason: string; readonly hint?: string }[] = [
  { codes: /^ECONNREFUSED$/, reason: "the connection was refused", hint: "Is `nixdeploy serve` running there?" },
  { codes: /^ENOENT$/, reason: "there is no such socket", hint: "Is `nixdeploy serve` running?" },
  { codes: /^EACCES$/, reason: "permission denied" },
  {
    codes: /^(ENOTFOUND|EAI_NODATA|DNS_.*)$/,
    reason: "its name is unknown (DNS)",
    hint: "Check NIXDEPLOY_URL or --url.",
  },
  { codes: /^EAI_AGAIN$/, reason: "the name service does not answer" },
  { codes: /^(ETIMEDOUT|UND_ERR_CONNECT_TIMEOUT)$/, reason: "it does not answer" },
  { codes: /^(EHOSTUNREACH|ENETUNREACH|ENETDOWN)$/, reason: "there is no route to it" },
  { codes: BROKEN_CODES, reason: "the connection broke" },
  { codes: /^(HPE_.*|Malformed_HTTP_Response)$/, reason: "it does not speak HTTP there", hint: HINT_ADDRESS },
  { codes: /^(EPROTO|ERR_SSL_.*)$/, reason: "it does not speak TLS there", hint: "Is the address http:// instead?" },
];
const CERTIFICATE_CODES = /^(CERT_.*|.*_CERT|.*_CERT_.*|UNABLE_TO_.*|ERR_TLS_CERT_ALTNAME_INVALID|INVALID_CA)$/;

/** What a TLS server does to who speaks HTTP to it. */
const HINT_TLS = "If it speaks TLS there, the address begins with https://.";
const HINT_AUTHORITY = "For an authority of your own, set SSL_CERT_FILE or NIX_SSL_CERT_FILE to a bundle that has it.";
/** A certificate that is not good at this time: or is it this time that is wrong? */
const CLOCK_CODES = /^(CERT_HAS_EXPIRED|CERT_NOT_YET_VALID)$/;
const HINT_CLOCK = "Renew the certificate there, or set this machine's clock (`date`).";

/** For a request that got no answer, or not all of it. @param error what the HTTP library threw */
export function failureOfConnection(error: unknown, { source, isThroughProxy }: Peer): HttpFailure {
  const code = codeOf(error);
  if (CERTIFICATE_CODES.test(code)) {
    const isClock = CLOCK_CODES.test(code);
    return new HttpFailure("unreachable", `cannot reach ${source}: its certificate is not trusted (${code})`, {
      isTransient: false,
      hint: isClock ? HINT_CLOCK : HINT_AUTHORITY,
      cause: error,
    });
  }
  const proxyStatus = isThroughProxy ? statusOfProxy(error) : null;
  if (proxyStatus !== null) return failureOfProxy(source, proxyStatus, error);
  const known = REASONS.find(({ codes }) => codes.test(code));
  const reason = known?.reason ?? (code === "" ? "the connection failed" : `the connection failed (${code})`);
  const isPlain = /^(ECONNRESET|UND_ERR_SOCKET)$/.test(code) && source.startsWith("http://");
  const hint = isThroughProxy ? HINT_PROXY : isPlain ? HINT_TLS : known?.hint;
  return new HttpFailure("unreachable", `cannot reach ${source}: ${reason}`, {
    isTransient: true,
    mayHaveArrived: BROKEN_CODES.test(code),
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** A proxy that did not pass the request on. */
export function failureOfProxy(source: string, status: number, cause?: unknown): HttpFailure {
  return new HttpFailure("unreachable", `cannot reach ${source}: the proxy answered with status ${status}`, {
    isTransient: status >= 500,
    hint: hintForProxy(status),
    ...(cause === undefined ? {} : { cause }),
  });
}

export const HINT_PROXY = "Check HTTPS_PROXY and HTTP_PROXY; NO_PROXY lists what is reached directly.";

export function hintForProxy(status: number): string {
  if (status !== 407) return `It may not allow that, or not get there itself. ${HINT_PROXY}`;
  return "The proxy wants a login: put it into its address, as in http://USER:PASSWORD@proxy.example:3128.";
}

/** undici, fetch and the websocket each have words of their own for a proxy that opens no tunnel. */
const PROXY_STATUS = /^(?=.*\b(?:proxy|tunnel)).*?\b([1-5]\d\d)\b/i;

/** With what status a proxy refused to pass the connection on; null when it was something else. */
export function statusOfProxy(error: unknown): number | null {
  const status = error instanceof Error ? PROXY_STATUS.exec(error.message)?.[1] : undefined;
  return status === undefined ? null : Number(status);
}

export function silentFailure(source: string, durationMs: number): HttpFailure {
  const seconds = Math.ceil(durationMs / 1000);
  return new HttpFailure("unreachable", `cannot reach ${source}: nothing came for ${seconds} s`, {
    ...{ isTransient: true, mayHaveArrived: true },
  });
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) {
    return "";
  }
  // undici gives this one no code.
  if (error.name === "HTTPParserError") return "HPE_INVALID";
  const own = "code" in error ? error.code : undefined;
  return typeof own === "string" ? own : codeOf(error.cause);
}
