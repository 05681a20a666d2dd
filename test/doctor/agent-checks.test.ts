/** What the doctor says of an activation on record, by who is at work on it. */
import { expect, test } from "bun:test";
import { readRecord, writeRecord } from "../../src/agent/activation/record.ts";
import { tryLockFile } from "../../src/agent/machine/flock.ts";
import { createAgentChecks } from "../../src/doctor/agent-checks.ts";
import { parseAgentName } from "../../src/names.ts";
import { systemClock } from "../../src/runtime.ts";
import { recordOf } from "../agent/activation/records.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";

async function lookAtJournals(stateDirectory: string) {
  const agent = { name: parseAgentName("nuc"), profilePath: "/p", healthChecksFile: null, stateDirectory };
  const checks = createAgentChecks({
    ...{ agent, environment: {}, clock: systemClock, url: null },
    findCache: async () => null,
  });
  const check = checks.find(({ name }) => name === "nuc journals");
  const [finding] = (await check?.look(new AbortController().signal)) ?? [];
  return finding;
}

test("of an activation on record", async () => {
  await using directory = await createTemporaryDirectory("agent-checks");
  expect(await lookAtJournals(directory.path)).toMatchObject({ verdict: "ok", message: "0 journals kept" });

  await writeRecord(directory.path, recordOf({ stage: "confirming" }));
  {
    using _supervisor = tryLockFile(directory.join("activation.lock"));
    expect(await lookAtJournals(directory.path)).toMatchObject({
      verdict: "ok",
      message: expect.stringMatching(/^it activates .* at this moment \(confirming\)$/),
    });
  }
  expect(await lookAtJournals(directory.path)).toMatchObject({
    verdict: "warning",
    message: expect.stringContaining("(confirming), and nobody carries it out"),
    hint: expect.stringContaining("Start the agent"),
  });

  await writeRecord(directory.path, recordOf({ stage: "finished", outcome: "rolled-back" }));
  expect(await lookAtJournals(directory.path)).toMatchObject({
    verdict: "warning",
    message: expect.stringContaining("is over (rolled-back), and the coordinator has not taken it yet"),
    hint: expect.stringContaining("see that it runs"),
  });
  // It has only been looked at.
  expect(await readRecord(directory.path)).toMatchObject({ stage: "finished" });
});
