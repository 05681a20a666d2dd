/** What the list of agents says about one that is silent, and about one that is too old. */
import { expect, test } from "bun:test";
import { agentSchema } from "../../src/api/agents.ts";
import { describeContact, formatAgents } from "../../src/commands/agents.ts";

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

test.each([
  ["outdated", "outdated: 0.1.0"],
  ["current", ""],
  ["newer", ""],
  ["unknown", ""],
] as const)("a version that is %s: %s", (versionStatus, expected) => {
  const paths = { profilePath: null, generation: null, currentPath: null, bootedPath: null, storeFreeBytes: null };
  const agent = agentSchema.parse({
    ...{ name: "nuc", workspace: "default", contact: "online", lastSeenAt: null, registeredAt: seen(5), ...paths },
    ...{ agentVersion: "0.1.0", versionStatus, nixVersion: null, system: "x86_64-linux", hostName: "nuc" },
    ...{ profile: "/nix/var/nix/profiles/system", keyFingerprint: "SHA256:x", deployment: null },
  });
  const [, row = ""] = formatAgents([agent], NOW_MS).split("\n");
  expect(row.includes("outdated")).toBe(expected !== "");
  expect(row).toContain(expected);
});
