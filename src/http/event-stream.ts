/**
 * Server-sent events (WHATWG HTML, 9.2.6 "Interpreting an event stream"), as a parser without I/O: bytes in, events
 * out, however the bytes are cut. `retry` is ignored: who reconnects, and when, is the caller's.
 *
 *   line  = ":" comment | field [ ":" [ " " ] value ]       ended by LF, CR LF or CR; an empty one ends the event
 *   field = "event" | "data" | "id" | anything, ignored
 */
import { NixdeployError } from "../errors.ts";

export type ServerSentEvent = {
  /** Of this event or the last one before it that had one; null when none had. */
  readonly id: string | null;
  /** "message" when the server gives none. */
  readonly event: string;
  /** Several data lines are joined by newlines. */
  readonly data: string;
};

/** Far above what the coordinator sends; guards memory against something that is no event stream. */
export const EVENT_CHARACTERS_MAX = 4 * 1024 * 1024;

export type EventStreamParser = {
  /** @throws NixdeployError "remote" when an event or a line is longer than {@link EVENT_CHARACTERS_MAX} */
  push(chunk: Uint8Array): ServerSentEvent[];
};

const LINE_END = /\r\n|\n|\r/;

export function createEventStreamParser(): EventStreamParser {
  const decoder = new TextDecoder();
  /** The beginning of a line whose end has not come. */
  let rest = "";
  /** A line ended with the chunk, by a CR that may be half of a CR LF. */
  let hasHalfLineEnd = false;
  let id: string | null = null;
  let event = "";
  let data: string[] = [];
  let dataLength = 0;

  const endEvent = (): ServerSentEvent[] => {
    const finished = data.length === 0 ? [] : [{ id, event: event || "message", data: data.join("\n") }];
    event = "";
    data = [];
    dataLength = 0;
    return finished;
  };
  const takeLine = (line: string): ServerSentEvent[] => {
    if (line === "") {
      return endEvent();
    }
    const { field, value } = splitField(line);
    if (field === "event") {
      event = value;
    } else if (field === "id" && !value.includes("\0")) {
      id = value;
    } else if (field === "data") {
      data.push(value);
      // With the newline that joins it to the next: empty lines take memory too.
      dataLength += value.length + 1;
    }
    return [];
  };
  /** The lines that end in `text`. What was held back before is not looked through again. */
  const splitLines = (text: string): string[] => {
    const lines = text.split(LINE_END);
    lines[0] = rest + (lines[0] ?? "");
    rest = lines.pop() ?? "";
    return lines;
  };

  return {
    push(chunk) {
      const decoded = decoder.decode(chunk, { stream: true });
      if (decoded === "") {
        return [];
      }
      const lines = splitLines(hasHalfLineEnd && decoded.startsWith("\n") ? decoded.slice(1) : decoded);
      hasHalfLineEnd = decoded.endsWith("\r");
      const events = lines.flatMap(takeLine);
      if (rest.length + dataLength > EVENT_CHARACTERS_MAX) {
        throw new NixdeployError(
          "remote",
          `cannot read the event stream: an event is longer than ${EVENT_CHARACTERS_MAX} characters`,
        );
      }
      return events;
    },
  };
}

function splitField(line: string): { readonly field: string; readonly value: string } {
  const colon = line.indexOf(":");
  if (colon === -1) {
    return { field: line, value: "" };
  }
  const value = line.slice(colon + 1);
  return { field: line.slice(0, colon), value: value.startsWith(" ") ? value.slice(1) : value };
}
