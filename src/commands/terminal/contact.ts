/** What commands that watch say when the coordinator goes away, and when it is there again. */
import type { CommandContext } from "../command-line/context.ts";

export const LOST = "lost the coordinator: trying again";

export function sayContact({ log }: Pick<CommandContext, "log">, contact: "lost" | "back"): void {
  log.warn(contact === "lost" ? LOST : "the coordinator is there again");
}
