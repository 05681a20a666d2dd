/** What the list of agents says about one that is silent. */
import { expect, test } from "bun:test";
import { describeContact } from "../../src/commands/agents.ts";

const NOW_MS = Date.parse("2026-01-01T12:00:00Z");
const seen = (minutesAgo: number) => new Date(NOW_MS - minutesAgo * 60_000).toISOString();

test.each([
  ["online", "rebooting", 0, "online"],
  ["unknown", "rebooting", 1, "rebooting"],
  ["offline", "rebooting", 15, "rebooting"],
  ["offline", "rebooting", 16, "offline: did not come back from its reboot"],
  ["offline", "confirming", 1, "offline"],
  ["offline", null, 1, "offline"],
] as const)("%s, last deployment %s, last seen %i minutes ago: %s", (contact, state, minutesAgo, expected) => {
  const deployment = state === null ? null : { state };
  expect(describeContact({ contact, deployment, lastSeenAt: seen(minutesAgo) }, NOW_MS)).toBe(expected);
});
