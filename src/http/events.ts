/** An event stream over HTTP: the parser of event-stream.ts fed by a body, with a limit to its silence. */
import { readAnswerText } from "./answer.ts";
import type { BodyAnswer, BodyRequest } from "./body.ts";
import { createEventStreamParser, type ServerSentEvent } from "./event-stream.ts";
import { failureOfAnswer, notACoordinator } from "./failure.ts";

/** The coordinator sends a comment every 15 s. */
const EVENT_SILENCE_MAX_MS = 60_000;

export type EventStreamRequest = {
  readonly url: string;
  readonly token?: string | undefined;
  readonly lastEventId: string | null;
  readonly signal: AbortSignal;
  readonly silenceMaxMs?: number;
};

export type EventStreamOptions = {
  readonly request: EventStreamRequest;
  /** How messages name the server. */
  readonly source: string;
  readonly open: (request: BodyRequest) => Promise<BodyAnswer>;
};

/** Ends when the server ends the stream. @throws NixdeployError "unreachable" when it breaks or falls silent */
export async function* readEventStream(options: EventStreamOptions): AsyncGenerator<ServerSentEvent> {
  const { request, source, open } = options;
  const { url, token, signal, lastEventId, silenceMaxMs = EVENT_SILENCE_MAX_MS } = request;
  const headers = { accept: "text/event-stream", ...resumeHeaders(lastEventId) };
  await using stream = await open({ url, token, signal, headers, silenceMaxMs });
  await checkIsEventStream(stream, source);
  const parser = createEventStreamParser();
  for await (const chunk of stream.body) yield* parser.push(chunk);
}

/** An id that no header can carry was not the coordinator's: the stream begins anew. */
function resumeHeaders(lastEventId: string | null): Readonly<Record<string, string>> {
  return lastEventId !== null && /^[!-~]{1,256}$/.test(lastEventId) ? { "last-event-id": lastEventId } : {};
}

async function checkIsEventStream({ status, headers, body }: BodyAnswer, source: string): Promise<void> {
  const contentType = headers.get("content-type") ?? "";
  if (status === 200 && contentType.startsWith("text/event-stream")) {
    return;
  }
  const answer = { status, contentType, location: headers.get("location"), text: await readAnswerText(body, source) };
  throw status === 200 ? notACoordinator(answer, source) : failureOfAnswer(answer, source);
}
