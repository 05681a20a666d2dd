/** A rollout as JSON lines on standard output (`--events`): everything that is known, as it becomes known. */
import { createRolloutWatch } from "../../client/watch/rollout-watch.ts";
import { measureSpeed } from "../../transfer-speed.ts";
import type { CommandContext } from "../command-line/context.ts";
import { printJsonLine } from "../terminal/output.ts";
import type { ViewOptions } from "./choose-view.ts";
import type { RolloutView } from "./view.ts";

/** Prints one; the names are a contract with scripts (docs/rollouts.md). */
export async function printEvent(
  context: Pick<CommandContext, "stdout">,
  event: "plan" | "rollout" | "deployment" | "log" | "progress" | "contact" | "result",
  data: unknown,
): Promise<void> {
  await printJsonLine(context, { event, data });
}

export function createEventsView(context: CommandContext, { rollout }: ViewOptions): RolloutView {
  const { clock } = context;
  const watch = createRolloutWatch(rollout.deployments, clock.monotonicMs());
  return {
    async note(note) {
      const nowMs = clock.monotonicMs();
      watch.note(note, nowMs);
      if (note.kind === "state") return await printEvent(context, "deployment", note.deployment);
      if (note.kind === "log") {
        const { deployment, agent, line } = note;
        return await printEvent(context, "log", { deployment, agent, ...line });
      }
      const { progress } = note;
      const samples = watch.all.get(progress.deployment)?.samples ?? [];
      const speed = measureSpeed(samples, { nowMs, bytesTotal: progress.bytesTotal });
      const { bytesPerSecond = null, secondsLeft = null } = speed ?? {};
      await printEvent(context, "progress", { ...progress, bytesPerSecond, secondsLeft });
    },
    contact: async (contact) => await printEvent(context, "contact", { contact }),
    close: async () => {},
  };
}
