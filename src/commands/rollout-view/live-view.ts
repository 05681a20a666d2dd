/**
 * A rollout on a terminal: a live line for each agent at the bottom, and above it what stays: what went wrong, with its
 * whole log, and with `--logs` every line. It is painted a few times a second, because time passes also when nothing comes.
 */
import { standingOf } from "../../client/follow/follow-state.ts";
import { formatDeploymentLine, formatLogLine } from "../../client/follow/follow-text.ts";
import { createRolloutWatch } from "../../client/watch/rollout-watch.ts";
import { renderScreen } from "../../client/watch/screen.ts";
import type { CommandContext, TerminalSize } from "../command-line/context.ts";
import { createStyle } from "../terminal/output.ts";
import type { ViewOptions } from "./choose-view.ts";
import { createScreenArea } from "./screen-area.ts";
import { describeContact, type RolloutView } from "./view.ts";

const PAINT_INTERVAL_MS = 200;
/** Lines of the area; more would leave no room for what stays. */
const ROWS_MAX = 24;
const FAILED_LOGS_MAX = 20;

export function createLiveView(
  context: CommandContext,
  options: ViewOptions & { readonly size: () => TerminalSize },
): RolloutView {
  const { clock, stderr } = context;
  const { logs, endedLogs, size } = options;
  const watch = createRolloutWatch(options.rollout.deployments, clock.monotonicMs());
  const style = createStyle({ isTerminal: true, env: context.env });
  const area = createScreenArea(stderr, size);
  const closed = new AbortController();
  let failed = 0;

  const paint = async () => {
    const { columns, rows } = size();
    // The last column stays empty: a terminal may begin a new line when it is used.
    const room = { columns: Math.max(1, columns - 1), rowsMax: Math.max(1, Math.min(ROWS_MAX, rows - 2)) };
    await area.paint(renderScreen([...watch.all.values()], { nowMs: clock.monotonicMs(), ...room, style }));
  };
  const ticking = (async () => {
    while (!closed.signal.aborted) {
      await paint();
      await clock.sleep(PAINT_INTERVAL_MS, closed.signal).catch(() => {
        // Closed: the loop ends.
      });
    }
  })();

  return {
    async note(note) {
      watch.note(note, clock.monotonicMs());
      if (note.kind === "log" && logs) await area.print([formatLogLine(note.agent, note.line)]);
      if (note.kind !== "state") return;
      const { deployment } = note;
      const isBad = standingOf(deployment.state, deployment.contact) === "bad";
      if (!isBad) return;
      failed += 1;
      const lines = logs || failed > FAILED_LOGS_MAX ? [] : await endedLogs.read(deployment);
      await area.print([...lines, style.red(formatDeploymentLine(deployment))]);
    },
    contact: async (contact) => await area.print([style.yellow(describeContact(contact))]),
    async close() {
      closed.abort();
      await ticking;
      await area.paint([]);
    },
  };
}
