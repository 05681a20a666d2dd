/** Reads server-sent events from an answer, one at a time, and lets a test break off anywhere. */
import { type FollowEvent, followEventSchema } from "../../src/api/deployments.ts";

export type StreamedEvent = { readonly id: string | null; readonly event: FollowEvent };

export type EventStream = {
  /** The next event, comments left out; null when the stream ended. @throws Error when none comes in time */
  next(): Promise<StreamedEvent | null>;
  /** Events up to and including the first that fits. @throws Error when the stream ends before */
  until(fits: (event: FollowEvent) => boolean): Promise<StreamedEvent[]>;
  /** Everything up to the end of the stream. */
  rest(): Promise<StreamedEvent[]>;
  /** Hangs up. */
  close(): Promise<void>;
};

const TIMEOUT_MS = 2_000;

export function readEventStream(response: Response): EventStream {
  if (response.body === null) throw new Error("the answer has no body");
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const nextBlock = async (): Promise<string | null> => {
    for (;;) {
      const end = text.indexOf("\n\n");
      if (end >= 0) {
        const block = text.slice(0, end);
        text = text.slice(end + 2);
        return block;
      }
      const { done, value } = await withDeadline(reader.read());
      if (done) return null;
      text += decoder.decode(value, { stream: true });
    }
  };
  const next = async (): Promise<StreamedEvent | null> => {
    for (;;) {
      const block = await nextBlock();
      if (block === null) return null;
      const fields = new Map(block.split("\n").map((line) => splitField(line)));
      const event = fields.get("event");
      if (event === undefined) continue;
      const data: unknown = JSON.parse(fields.get("data") ?? "null");
      return { id: fields.get("id") ?? null, event: followEventSchema.parse({ event, data }) };
    }
  };
  return {
    next,
    async until(fits) {
      const seen: StreamedEvent[] = [];
      for (;;) {
        const event = await next();
        if (event === null) throw new Error(`the stream ended after ${JSON.stringify(seen)}`);
        seen.push(event);
        if (fits(event.event)) return seen;
      }
    },
    async rest() {
      const seen: StreamedEvent[] = [];
      for (let event = await next(); event !== null; event = await next()) seen.push(event);
      return seen;
    },
    close: () => reader.cancel(),
  };
}

function splitField(line: string): [name: string, value: string] {
  const colon = line.indexOf(":");
  return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
}

async function withDeadline<Value>(promise: Promise<Value>): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no event came within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
