/**
 * How far apart an agent's release and its coordinator's may be. Values in, value out.
 *
 * | the agent is                              | it is     | and                                                       |
 * | ----------------------------------------- | --------- | --------------------------------------------------------- |
 * | more than one minor version ahead         | too new   | refused: the coordinator may not know what it says        |
 * | one minor version ahead                   | newer     | served                                                    |
 * | of the same minor version, or one behind  | current   | served                                                    |
 * | further behind                            | outdated  | served what was frozen: it can always be brought up to date |
 *
 * Patches and pre-releases do not count. Another major version is as far away as can be. A version that is none of ours (a
 * build of somebody's own) says nothing, and is served.
 */

export const VERSION_STATUSES = ["current", "outdated", "newer", "unknown"] as const;
export type VersionStatus = (typeof VERSION_STATUSES)[number];

/** Minor versions between the two that work with each other in every way. */
const MINORS_APART_MAX = 1;
const VERSION = /^(\d{1,6})\.(\d{1,6})\.\d{1,6}(?:[-+].*)?$/;

/** @returns minor versions that the agent is ahead, negative when it is behind; null when one of the two is no version */
function minorsAhead(agent: string, coordinator: string): number | null {
  const [, agentMajor, agentMinor] = VERSION.exec(agent) ?? [];
  const [, major, minor] = VERSION.exec(coordinator) ?? [];
  if (agentMajor === undefined || major === undefined) return null;
  const majorsAhead = Number(agentMajor) - Number(major);
  if (majorsAhead !== 0) return majorsAhead * Number.POSITIVE_INFINITY;
  return Number(agentMinor) - Number(minor);
}

/** As it is shown to whoever looks after the fleet. */
export function judgeVersion(agent: string, coordinator: string): VersionStatus {
  const ahead = minorsAhead(agent, coordinator);
  if (ahead === null) return "unknown";
  if (ahead > 0) return "newer";
  return ahead < -MINORS_APART_MAX ? "outdated" : "current";
}

/** Whether a coordinator must refuse it. */
export function isTooNew(agent: string, coordinator: string): boolean {
  return (minorsAhead(agent, coordinator) ?? 0) > MINORS_APART_MAX;
}
