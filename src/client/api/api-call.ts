/**
 * One call of the REST API, apart from how it travels: over HTTP, over the control socket, or to a coordinator that
 * was opened in this process because none runs (`transport.ts`).
 */
import type { z } from "zod";

export type ApiCall<Answer> = {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Below `/api/v1`, with a slash first; names in it are already encoded. */
  readonly path: string;
  /** Undefined values are left out. */
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** The coordinator does what is asked with this key once; makes any call idempotent. */
  readonly idempotencyKey?: string;
  /** What a 2xx answer must look like; an empty body counts as null (`z.null()`). */
  readonly schema: z.ZodType<Answer>;
  /** May be sent again when the answer got lost. Default: for GET only. */
  readonly isIdempotent?: boolean;
  readonly signal: AbortSignal;
};

/**
 * @throws NixdeployError of the kind that the answer's status stands for, with the coordinator's own sentence;
 *   "unreachable" without an answer; "remote" when the answer has another shape
 */
export type CallApi = <Answer>(call: ApiCall<Answer>) => Promise<Answer>;

export function formatApiPath({ path, query = {} }: Pick<ApiCall<unknown>, "path" | "query">): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) search.set(name, String(value));
  }
  return `/api/v1${path}${search.size === 0 ? "" : `?${search}`}`;
}
