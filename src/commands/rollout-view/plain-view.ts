/**
 * A rollout as lines, each of which says whose it is: for logs of CI, files, and terminals that can do nothing else. Of many
 * agents only what went wrong has a line of its own, and counts say how far the others are. Where the CI folds lines, the log
 * of each deployment is a group, printed when it has ended: groups cannot be interleaved.
 */
import type { DeploymentDto } from "../../api/deployments.ts";
import type { FollowNote } from "../../client/follow/follow-state.ts";
import { standingOf } from "../../client/follow/follow-state.ts";
import { formatDeploymentLine, formatLogLine, formatProgress } from "../../client/follow/follow-text.ts";
import { createRolloutWatch, type Watched } from "../../client/watch/rollout-watch.ts";
import { formatCounts } from "../../client/watch/screen.ts";
import { isTerminal } from "../../deployment.ts";
import { describeSpeed, measureSpeed } from "../../transfer-speed.ts";
import { drawToken } from "../ci-report.ts";
import type { CommandContext } from "../command-line/context.ts";
import { formatGroup } from "../terminal/workflow-commands.ts";
import type { ViewOptions } from "./choose-view.ts";
import { describeContact, type RolloutView } from "./view.ts";

/** Up to so many, every line of every log is shown, because nobody comes back to ask for it. */
const LOGS_OF_MAX = 10;
/** Up to so many, every change of state is. */
const STATES_OF_MAX = 50;
const FAILED_LOGS_MAX = 20;
const PROGRESS_INTERVAL_MS = 2_000;
const COUNTS_INTERVAL_MS = 5_000;

export function createPlainView(context: CommandContext, options: ViewOptions): RolloutView {
  const { clock, log, workflow } = context;
  const { endedLogs, rollout } = options;
  const agents = rollout.deployments.length;
  const hasLogs = options.logs || agents <= LOGS_OF_MAX;
  const watch = createRolloutWatch(rollout.deployments, clock.monotonicMs());
  let failed = 0;
  let saidAtMs = clock.monotonicMs();
  let counts = "";

  const isDue = (intervalMs: number) => {
    const nowMs = clock.monotonicMs();
    if (nowMs - saidAtMs < intervalMs) return false;
    saidAtMs = nowMs;
    return true;
  };
  const sayCounts = () => {
    const text = formatCounts([...watch.all.values()], clock.monotonicMs());
    if (text !== counts) log.info(text);
    counts = text;
  };
  const showLog = async (deployment: DeploymentDto, isBad: boolean) => {
    if (isBad) failed += 1;
    const isWanted = workflow === null ? isBad && !hasLogs : hasLogs || isBad || agents <= STATES_OF_MAX;
    if (!isWanted || (isBad && failed > FAILED_LOGS_MAX && !options.logs)) return;
    const lines = await endedLogs.read(deployment);
    if (workflow === null) for (const line of lines) log.info(line);
    else if (lines.length > 0) {
      const title = `log of ${deployment.agent} (${deployment.state})`;
      await workflow.write(formatGroup({ title, lines, token: drawToken(context) }));
    }
  };
  const noteState = async ({ deployment }: Extract<FollowNote, { kind: "state" }>) => {
    const isBad = standingOf(deployment.state, deployment.contact) === "bad";
    if (isTerminal(deployment.state)) await showLog(deployment, isBad);
    if (agents <= STATES_OF_MAX || isBad || deployment.stalledSince !== null)
      log.info(formatDeploymentLine(deployment));
    else if (isDue(COUNTS_INTERVAL_MS)) sayCounts();
  };

  return {
    async note(note) {
      watch.note(note, clock.monotonicMs());
      if (note.kind === "state") return await noteState(note);
      if (note.kind === "log") {
        if (hasLogs && workflow === null) log.info(formatLogLine(note.agent, note.line));
        return;
      }
      if (agents > STATES_OF_MAX) return isDue(COUNTS_INTERVAL_MS) ? sayCounts() : undefined;
      const watched = watch.all.get(note.progress.deployment);
      if (isDue(PROGRESS_INTERVAL_MS))
        log.info(`${formatProgress(note.progress)}${formatSpeed(watched, clock.monotonicMs())}`);
    },
    contact: async (contact) => log.warn(describeContact(contact)),
    async close() {
      if (agents > STATES_OF_MAX) sayCounts();
    },
  };
}

/** `, 10.0 MB/s, 3 s left` */
function formatSpeed(watched: Watched | undefined, nowMs: number): string {
  if (watched === undefined || watched.progress === null) return "";
  const speed = measureSpeed(watched.samples, { nowMs, bytesTotal: watched.progress.bytesTotal });
  return describeSpeed(speed)
    .map((part) => `, ${part}`)
    .join("");
}
