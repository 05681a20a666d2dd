/** An event stream over HTTP: the parser of event-stream.ts fed by a body, with a limit to its silence. */
import { createEventStreamParser, type ServerSentEvent } from "./event-stream.ts";
import { readAnswerText } from "./http-answer.ts";
import type { BodyAnswer, BodyRequest } from "./http-body.ts";
import { failureOfAnswer, notACoordinator, silentFailure } from "./http-failure.ts";
import type { Clock } from "./runtime.ts";

/** The coordinator sends a comment each 15 s. */
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
  readonly clock: Clock;
  readonly open: (request: BodyRequest) => Promise<BodyAnswer>;
};

/** Ends when the server ends the stream. @throws NixdeployError "unreachable" when it breaks or falls silent */
export async function* readEventStream(options: EventStreamOptions): AsyncGenerator<ServerSentEvent> {
  const { request, source, clock, open } = options;
  const { url, token, signal, lastEventId, silenceMaxMs = EVENT_SILENCE_MAX_MS } = request;
  const headers = { accept: "text/event-stream", ...(lastEventId === null ? {} : { "last-event-id": lastEventId }) };
  await using stream = await open({ url, token, signal, headers });
  await checkIsEventStream(stream, source);
  const parser = createEventStreamParser();
  const chunks = stream.body[Symbol.asyncIterator]();
  for (;;) {
    const step = await nextWithin(chunks, silenceMaxMs, clock);
    if (step === "silent") {
      throw silentFailure(source, silenceMaxMs);
    }
    if (step.done === true) {
      return;
    }
    yield* parser.push(step.value);
  }
}

async function checkIsEventStream({ status, headers, body }: BodyAnswer, source: string): Promise<void> {
  const contentType = headers.get("content-type") ?? "";
  if (status === 200 && contentType.startsWith("text/event-stream")) {
    return;
  }
  const answer = { status, contentType, location: headers.get("location"), text: await readAnswerText(body, source) };
  throw status === 200 ? notACoordinator(answer, source) : failureOfAnswer(answer, source);
}

/** What comes next, or "silent" when nothing came for so long. */
async function nextWithin<T>(iterator: AsyncIterator<T>, durationMs: number, clock: Clock) {
  const arrived = new AbortController();
  const silence = clock.sleep(durationMs, arrived.signal).then(
    () => "silent" as const,
    // Something arrived: nobody looks at this any more.
    () => "silent" as const,
  );
  try {
    return await Promise.race([iterator.next(), silence]);
  } finally {
    arrived.abort();
  }
}
