/**
 * How much is kept of what a deployment prints. Beyond it lines are dropped, and still acknowledged: the agent is not to
 * send them again, and its outcome comes behind them. One line in their place says so. Values in, value out.
 */
import type { LogLine } from "../../api/deployments.ts";

/** Of one deployment; a line counts for its text in UTF-8 and for {@link LINE_BYTES}. */
export const LOG_BYTES_MAX = 64 * 1024 * 1024;
/** Number, time and stream: so that empty lines are not free. */
export const LINE_BYTES = 64;

export type KeptLog = {
  /** Of everything that is kept. */
  readonly log_bytes: number;
  readonly log_truncated: number;
};

/** @param before what is kept already. @returns what is kept then, and which of the lines */
export function fitLines(
  before: KeptLog,
  lines: readonly LogLine[],
  bytesMax = LOG_BYTES_MAX,
): KeptLog & { readonly lines: readonly LogLine[] } {
  if (before.log_truncated === 1) return { log_bytes: before.log_bytes, log_truncated: 1, lines: [] };
  let bytes = before.log_bytes;
  for (const [index, line] of lines.entries()) {
    const lineBytes = Buffer.byteLength(line.text) + LINE_BYTES;
    if (bytes + lineBytes > bytesMax) {
      const kept = [...lines.slice(0, index), { ...line, stream: "agent", text: describeLimit(bytesMax) } as const];
      return { log_bytes: bytes + LINE_BYTES, log_truncated: 1, lines: kept };
    }
    bytes += lineBytes;
  }
  return { log_bytes: bytes, log_truncated: 0, lines };
}

function describeLimit(bytesMax: number): string {
  return `[the coordinator keeps ${Math.round(bytesMax / 2 ** 20)} MiB of a log: what came after this is not there]`;
}
