/**
 * The stderr loop: what the daemon sends before every reply, down to "your reply follows" or "refused".
 * Log lines, activities and progress are passed over: nothing of ours shows them, and SetOptions keeps them few.
 *
 *   LAST                                            the reply's fields follow
 *   ERROR  str "Error", int level, str name, str message, int 0, int n, n × (int 0, str trace)
 *   NEXT   str line
 *   START_ACTIVITY  int id, int level, int type, str text, fields, int parent
 *   STOP_ACTIVITY   int id
 *   RESULT          int id, int type, fields        fields = int n, n × (int 0, int | int 1, str)
 *
 * READ and WRITE of the protocol do not exist here: no operation of ours uses them from 1.34 on.
 * Source: Nix src/libstore/remote-store.cc (processStderr), src/libutil/serialise.cc (readError), 2.8.0.
 */
import type { ByteReader } from "./byte-reader.ts";
import { cleanDaemonText, type DaemonReport, ProtocolError } from "./daemon-error.ts";
import { ERROR_TEXT_MAX_BYTES, FIELDS_MAX_LENGTH, LOG_TEXT_MAX_BYTES, messages, TEXT_MAX_BYTES } from "./wire.ts";

export type Reply = { readonly kind: "ready" } | { readonly kind: "refused"; readonly report: DaemonReport };

const TRACES_KEPT = 8;

/** Reads messages until the daemon is done with the request. After "ready" the reply's own fields are next. */
export async function readReply(reader: ByteReader): Promise<Reply> {
  for (;;) {
    const message = await reader.readInt();
    switch (message) {
      case messages.last:
        return { kind: "ready" };
      case messages.error:
        return { kind: "refused", report: await readReport(reader) };
      case messages.next:
        await reader.skipText(LOG_TEXT_MAX_BYTES);
        break;
      case messages.startActivity:
        await skipInts(reader, 3);
        await reader.skipText(LOG_TEXT_MAX_BYTES);
        await skipFields(reader);
        await skipInts(reader, 1);
        break;
      case messages.stopActivity:
        await skipInts(reader, 1);
        break;
      case messages.result:
        await skipInts(reader, 2);
        await skipFields(reader);
        break;
      default:
        throw new ProtocolError(`message 0x${message.toString(16)}, which is unknown or does not belong here`);
    }
  }
}

async function readReport(reader: ByteReader): Promise<DaemonReport> {
  await reader.skipText(TEXT_MAX_BYTES);
  await skipInts(reader, 1);
  await reader.skipText(TEXT_MAX_BYTES);
  const message = cleanDaemonText(await reader.readText(ERROR_TEXT_MAX_BYTES));
  await readNoPosition(reader);
  const traceCount = await reader.readCount(FIELDS_MAX_LENGTH);
  const traces: string[] = [];
  for (let index = 0; index < traceCount; index++) {
    await readNoPosition(reader);
    if (index < TRACES_KEPT) traces.push(cleanDaemonText(await reader.readText(ERROR_TEXT_MAX_BYTES)));
    else await reader.skipText(ERROR_TEXT_MAX_BYTES);
  }
  return { message: message === "" ? "the Nix daemon gave no reason" : message, traces };
}

/** Positions were never serialized by any version; a 1 here would mean bytes of unknown shape. */
async function readNoPosition(reader: ByteReader): Promise<void> {
  if (await reader.readBool()) throw new ProtocolError("an error message with a source position");
}

async function skipInts(reader: ByteReader, count: number): Promise<void> {
  for (let index = 0; index < count; index++) await reader.readInt();
}

async function skipFields(reader: ByteReader): Promise<void> {
  const count = await reader.readCount(FIELDS_MAX_LENGTH);
  for (let index = 0; index < count; index++) {
    const type = await reader.readInt();
    if (type === 0) await reader.readInt();
    else if (type === 1) await reader.skipText(LOG_TEXT_MAX_BYTES);
    else throw new ProtocolError(`a log field of unknown type ${type}`);
  }
}
