/** Logs of deployments that have ended, read from the coordinator: of what failed always, for whoever looks on. */
import type { DeploymentDto } from "../../api/deployments.ts";
import type { CoordinatorClient } from "../../client/api/coordinator.ts";
import { formatLogLine } from "../../client/follow/follow-text.ts";
import { describeError } from "../../errors.ts";
import type { DeploymentId } from "../../names.ts";
import type { CommandContext } from "../command-line/context.ts";

export type EndedLogs = {
  /**
   * Lines as they are printed, with a last one that says where the rest is, if there is any. Never throws: that a log cannot
   * be read is a line of it. Once each: something may become known of a deployment after its end.
   */
  read(deployment: DeploymentDto): Promise<readonly string[]>;
  /** The last lines of each that was read, for a report. */
  readonly tails: ReadonlyMap<DeploymentId, readonly string[]>;
};

const LINES_MAX = 5_000;
const TAIL_LINES = 50;

export function createEndedLogs(
  { signal }: Pick<CommandContext, "signal">,
  coordinator: Pick<CoordinatorClient, "readLog">,
): EndedLogs {
  const tails = new Map<DeploymentId, readonly string[]>();
  return {
    tails,
    async read({ id, agent }) {
      if (tails.has(id)) return [];
      const texts: string[] = [];
      const last: string[] = [];
      try {
        for (let after: number | null = 0; after !== null && texts.length < LINES_MAX; ) {
          const page = await coordinator.readLog({ id, after }, signal);
          texts.push(...page.lines.map(({ text }) => text));
          after = page.next;
          if (after !== null && texts.length >= LINES_MAX) last.push(`the rest: nixdeploy logs ${id}`);
        }
      } catch (error) {
        last.push(`cannot read the log (${describeError(error)}): nixdeploy logs ${id}`);
      }
      tails.set(id, texts.slice(-TAIL_LINES));
      return [...texts, ...last].map((text) => formatLogLine(agent, { text }));
    },
  };
}
