/** enrolment.json between two starts of an agent. (Which keys are pinned: substituter-pins.test.ts and agent.test.ts.) */
import { expect, test } from "bun:test";
import { isSameEnrolment, readEnrolment, writeEnrolment } from "../../../src/agent/link/enrolment.ts";
import { planSubstituterPins } from "../../../src/agent/link/substituter-pins.ts";
import { parseAgentId, parseCacheName, parseWorkspaceName } from "../../../src/names.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

const KEY = `main-1:${Buffer.alloc(32, 1).toString("base64")}`;
const welcome = { cache: { name: parseCacheName("main"), path: "/cache/main", publicKeys: [KEY] }, substituters: [] };

test("the same welcome at the next start has nothing new to write", async () => {
  await using directory = await createTemporaryDirectory("enrolment");
  const enrolled = (before: Awaited<ReturnType<typeof readEnrolment>>) => ({
    coordinatorUrl: "https://deploy.example.org",
    agentId: parseAgentId("0123456789abcdfg"),
    workspace: parseWorkspaceName("default"),
    pinnedPublicKeys: [KEY],
    ...planSubstituterPins({ given: [], enrolment: before, welcome, pinnedPublicKeys: [KEY] }).record,
  });
  const first = enrolled(null);
  expect(isSameEnrolment(null, first)).toBe(false);
  await writeEnrolment(directory.path, first);
  const read = await readEnrolment(directory.path);
  expect(isSameEnrolment(read, enrolled(read))).toBe(true);
  expect(isSameEnrolment(read, { ...first, workspace: parseWorkspaceName("prod") })).toBe(false);
});
