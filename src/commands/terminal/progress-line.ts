/**
 * Progress on standard error: one line that changes on a terminal, now and then a plain line anywhere else.
 * Needs no timer: it is told of progress often, and decides what of it to show.
 */
import type { CommandContext } from "../command-line/context.ts";

const TERMINAL_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 2_000;
const CLEAR_LINE = "\r\u001b[K";

export type ProgressLine = {
  /** Shows how far things are; skipped when the last was shown a moment ago. */
  update(text: () => string): Promise<void>;
  /** Prints a line that stays. */
  say(line: string): Promise<void>;
  /** Takes the changing line away; to be called at the end. */
  clear(): Promise<void>;
};

export function createProgressLine(context: Pick<CommandContext, "stderr" | "log" | "clock" | "env">): ProgressLine {
  const { stderr, log, clock } = context;
  const isLive = stderr.isTerminal && context.env["TERM"] !== "dumb";
  const intervalMs = isLive ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS;
  let shownAtMs = clock.monotonicMs();
  let isShown = false;

  const clear = async () => {
    if (!isShown) return;
    isShown = false;
    await stderr.write(CLEAR_LINE);
  };
  return {
    clear,
    async update(text) {
      const nowMs = clock.monotonicMs();
      if (nowMs - shownAtMs < intervalMs) return;
      shownAtMs = nowMs;
      if (!isLive) return log.info(text());
      isShown = true;
      await stderr.write(`${CLEAR_LINE}${text()}`);
    },
    async say(line) {
      await clear();
      log.info(line);
    },
  };
}
