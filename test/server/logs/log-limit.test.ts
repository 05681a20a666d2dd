/** What is kept of a log that is too long, and what is said of the rest. */
import { describe, expect, test } from "bun:test";
import { deploymentSchema, type LogLine, logPageSchema } from "../../../src/api/deployments.ts";
import { LOG_LINE_CHARACTERS_MAX } from "../../../src/protocol.ts";
import { fitLines, LINE_BYTES, LOG_BYTES_MAX } from "../../../src/server/logs/log-limit.ts";
import { createTestCoordinator } from "../../support/coordinator.ts";
import { logEntry, numberEntries, outcomeEntry, phaseEntry } from "../../support/scripted-agent.ts";
import { createTinyPath } from "../../support/tiny-path.ts";

const line = (n: number, text: string): LogLine => ({ n, at: "2026-01-01T00:00:00.000Z", stream: "out", text });
const cost = (...texts: readonly string[]) =>
  texts.reduce((sum, text) => sum + Buffer.byteLength(text) + LINE_BYTES, 0);
const NOTHING = { log_bytes: 0, log_truncated: 0 };

describe("of lines", () => {
  test("what fits is kept, to the byte", () => {
    const lines = [line(1, "a"), line(2, "ü"), line(3, "")];
    const bytesMax = cost("a", "ü", "");
    expect(fitLines(NOTHING, lines, bytesMax)).toEqual({ log_bytes: bytesMax, log_truncated: 0, lines });
  });

  test("the first that does not fit is replaced by what says so, and nothing comes after it", () => {
    const lines = [line(1, "a"), line(2, "bb"), line(3, "c")];
    const fitted = fitLines(NOTHING, lines, cost("a", "b"));
    expect(fitted.lines.map(({ n, text }) => [n, text])).toEqual([
      [1, "a"],
      [2, expect.stringContaining("what came after this is not there")],
    ]);
    expect(fitted.log_truncated).toBe(1);
    expect(fitLines(fitted, [line(4, "")], 1e9).lines).toEqual([]);
  });
});

test("an agent that prints too much is acknowledged, ends as it says, and its log says that it is cut", async () => {
  await using server = await createTestCoordinator();
  const path = createTinyPath("one");
  await server.publishUnseen(path);
  const nuc = await server.connectAgent("nuc");
  const rollout = await server.activate(path, "nuc");
  const id = rollout.deployments[0]?.id;
  if (id === undefined) throw new Error("there is no deployment");
  await nuc.report(id, numberEntries([phaseEntry("activating")]));
  const long = "x".repeat(LOG_LINE_CHARACTERS_MAX);
  const perReport = 200;
  const needed = Math.ceil(LOG_BYTES_MAX / long.length) + perReport;
  let n = 2;
  for (; n < needed; n += perReport) {
    const entries = numberEntries(
      Array.from({ length: perReport }, () => logEntry(long)),
      n,
    );
    expect(await nuc.report(id, entries)).toBe(n + perReport - 1);
  }
  await nuc.report(id, numberEntries([logEntry("last words"), outcomeEntry("succeeded")], n));
  const shown = deploymentSchema.parse(await (await server.fetch(`deployments/${id}`)).json());
  expect(shown).toMatchObject({ state: "succeeded", logTruncated: true, logExpired: false });
  // The first entry was no line.
  const after = Math.floor(LOG_BYTES_MAX / (long.length + LINE_BYTES));
  const page = logPageSchema.parse(await (await server.fetch(`deployments/${id}/log?after=${after}`)).json());
  expect(page.lines.map(({ text }) => text.slice(0, 30))).toEqual([
    long.slice(0, 30),
    "[the coordinator keeps 64 MiB of a log: what came after this is not there]".slice(0, 30),
  ]);
  expect(page.next).toBeNull();
}, 90_000);
