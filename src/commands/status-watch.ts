/** `nixdeploy status --watch`: on a terminal the table, painted anew; elsewhere the table once, then a line an event. */
import type { CoordinatorClient } from "../client/api/coordinator.ts";
import { cutToWidth } from "../client/watch/screen.ts";
import { type Seen, watchStatus } from "../client/watch/watch-status.ts";
import type { WorkspaceName } from "../names.ts";
import { formatCount } from "../quantity.ts";
import type { CommandContext } from "./command-line/context.ts";
import { formatStreamEvent } from "./events.ts";
import { createScreenArea } from "./rollout-view/screen-area.ts";
import { LOST, sayContact } from "./terminal/contact.ts";
import { createStyle, printJsonLine } from "./terminal/output.ts";

type Watching = {
  readonly coordinator: CoordinatorClient;
  readonly workspace: WorkspaceName | undefined;
  readonly format: (seen: Seen) => string;
  readonly toJson: (seen: Seen) => unknown;
};

/** How each change is shown. */
type View = {
  seen(seen: Seen): Promise<void>;
  event(line: string): Promise<void>;
  contact(contact: "lost" | "back"): Promise<void>;
};

/** Until it is interrupted. @throws as `watchStatus` does */
export async function showStatusLive(context: CommandContext, watching: Watching): Promise<never> {
  const { coordinator, workspace } = watching;
  const { clock, random, signal } = context;
  const view = createView(context, watching);
  return await watchStatus({
    ...{ coordinator, workspace, clock, random, signal },
    onSeen: (seen) => view.seen(seen),
    onEvent: (event) => view.event(formatStreamEvent(event)),
    onContact: (contact) => view.contact(contact),
  });
}

function createView(context: CommandContext, watching: Watching): View {
  if (context.json) {
    return {
      seen: (seen) => printJsonLine(context, watching.toJson(seen)),
      event: async () => {},
      contact: async (contact) => sayContact(context, contact),
    };
  }
  const { size } = context.stdout;
  const isLive = context.stdout.isTerminal && context.env["TERM"] !== "dumb" && size !== undefined;
  return isLive ? createLiveView(context, watching, size) : createPlainView(context, watching);
}

function createPlainView(context: CommandContext, { format }: Watching): View {
  let isFirst = true;
  return {
    async seen(seen) {
      if (isFirst) await context.stdout.write(`${format(seen)}\n`);
      isFirst = false;
    },
    event: async (line) => await context.stdout.write(`${line}\n`),
    contact: async (contact) => sayContact(context, contact),
  };
}

/** The lines that fit, and how many more there are. */
export function fitLines(
  lines: readonly string[],
  size: { readonly columns: number; readonly rows: number },
): string[] {
  const room = Math.max(1, size.rows - 2);
  const isWhole = lines.length <= room;
  const shown = isWhole ? lines : lines.slice(0, room - 1);
  const rest = isWhole
    ? []
    : [`… ${formatCount(lines.length - shown.length, "more line")}: a larger terminal shows them`];
  // The last column stays empty: a terminal may begin a new line when it is used.
  return [...shown, ...rest].map((line) => cutToWidth(line, Math.max(1, size.columns - 1)));
}

function createLiveView(
  context: CommandContext,
  { format }: Watching,
  size: NonNullable<CommandContext["stdout"]["size"]>,
): View {
  const style = createStyle({ isTerminal: true, env: context.env });
  const area = createScreenArea(context.stdout, size);
  let table: readonly string[] = [];
  let trouble: string | null = null;
  const paint = async () => {
    const time = new Date(context.clock.nowMs()).toISOString().slice(11, 19);
    const { columns, rows } = size();
    const [foot = ""] = fitLines([trouble ?? `as of ${time} UTC; Ctrl-C ends`], { columns, rows });
    const paintFoot = trouble === null ? style.dim : style.yellow;
    await area.paint([...fitLines(table, { columns, rows: rows - 1 }), paintFoot(foot)]);
  };
  return {
    async seen(seen) {
      table = format(seen).split("\n");
      await paint();
    },
    // The table says it.
    event: async () => {},
    async contact(contact) {
      trouble = contact === "lost" ? LOST : null;
      await paint();
    },
  };
}
