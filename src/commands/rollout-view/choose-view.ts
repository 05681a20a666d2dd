/** Which of the views it is: by what was asked for, and by where it is printed. */
import type { StartedRolloutDto } from "../../api/rollouts.ts";
import type { CommandContext } from "../command-line/context.ts";
import type { EndedLogs } from "./ended-logs.ts";
import { createEventsView } from "./events-view.ts";
import { createLiveView } from "./live-view.ts";
import { createPlainView } from "./plain-view.ts";
import type { RolloutView } from "./view.ts";

export type ViewOptions = {
  readonly rollout: StartedRolloutDto;
  /** Every line of every log. */
  readonly logs: boolean;
  readonly endedLogs: EndedLogs;
};

export function chooseView(context: CommandContext, options: ViewOptions & { readonly events: boolean }): RolloutView {
  if (options.events) return createEventsView(context, options);
  const { stderr, env } = context;
  const { size } = stderr;
  const isAble = stderr.isTerminal && env["TERM"] !== "dumb" && size !== undefined;
  const isWanted = context.workflow === null && context.logFormat === "text";
  return isAble && isWanted ? createLiveView(context, { ...options, size }) : createPlainView(context, options);
}
