/** A body as it comes over the wire: what is asked for, and what one gets to read. */

export type BodyRequest = {
  readonly url: string;
  readonly method?: "GET" | "HEAD";
  readonly token?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** The first byte wanted; whether the server heeds it is in the answer's status (206) and Content-Range. */
  readonly rangeStart?: number;
  /** Default true. */
  readonly followRedirects?: boolean;
  /** How long the body may be silent; without it that is for its reader to say. */
  readonly silenceMaxMs?: number;
  readonly signal: AbortSignal;
};

export type BodyAnswer = AsyncDisposable & {
  readonly status: number;
  readonly headers: Headers;
  /** As on the wire. Read once, or dispose of the answer. */
  readonly body: AsyncIterable<Uint8Array>;
};
