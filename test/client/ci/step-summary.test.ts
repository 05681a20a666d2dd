/** The page of a step: what it says, and that nothing a device says becomes Markdown or HTML. */
import { expect, test } from "bun:test";
import { rolloutSchema } from "../../../src/api/rollouts.ts";
import { escapeMarkdown, formatStepSummary } from "../../../src/client/ci/step-summary.ts";
import { toRolloutResult } from "../../../src/client/follow/rollout-result.ts";
import { createDeployment } from "../../support/deployment-example.ts";
import { storePathFor } from "../../support/tiny-path.ts";

const FROM = storePathFor("from");
const TO = storePathFor("to");
const NASTY = "| <script>alert(1)</script> [x](http://evil) **b** `c` &amp; @all #1\n# title \u001b[31mred";

function summaryOf(count = 1, worst: { readonly reason: string; readonly lines: readonly string[] } | null = null) {
  const deployments = Array.from({ length: count }, (_, index) =>
    createDeployment({
      ...{ id: `${index}`.padStart(16, "a"), agent: `nuc-${index}`, finishedAt: "2026-01-01T00:00:12Z" },
      ...(worst !== null
        ? { state: "failed", reason: worst.reason }
        : index === count - 1
          ? { state: "rolled-back", reason: NASTY }
          : { state: "succeeded" }),
    }),
  );
  const origin = { repository: "acme/fleet", commit: "0123456789abcdef", ref: "refs/heads/<b>", actor: "ada" };
  const facts = { id: "rrrrrrrrrrrrrrrr", workspace: "default", createdAt: "2026-01-01T00:00:00Z" };
  const rollout = rolloutSchema.parse({ ...facts, description: "new kernel", origin, url: "https://x/r", deployments });
  const plan = {
    workspace: rollout.workspace,
    agents: deployments.map(({ agent }) => ({
      agent,
      contact: "online" as const,
      from: FROM,
      to: TO,
      diff: 0,
      why: null,
    })),
    diffs: [
      {
        ...{ from: FROM, to: TO, changesOmitted: 3, rebuilt: 0, sizeBeforeBytes: 1, sizeAfterBytes: 2 },
        ...{
          fetchPaths: 1,
          fetchBytes: 5,
          changes: [{ name: "linux", kind: "up" as const, before: ["6.6.1"], after: ["6.6.2"] }],
        },
      },
    ],
  };
  const result = toRolloutResult(rollout, { deployments, plan });
  const lines = worst?.lines ?? ["starting", "</pre><b>", "", NASTY];
  const logs = new Map(deployments.map(({ id }) => [id, lines]));
  return formatStepSummary({ result, logs });
}

test("outcome, table, diff, log and where it came from", () => {
  const text = summaryOf();
  expect(text).toStartWith("### ❌ Deployment failed: [rrrrrrrrrrrrrrrr](https://x/r)\n\nnew kernel\n\n| agent |");
  expect(text).toContain(
    "| [nuc&#45;0](http://localhost/d/a) | rolled-back | 12 s | &#124; &#60;script&#62;".replace("&#45;", "-"),
  );
  expect(text).toContain(
    "<summary><b>nuc-0</b>: 1 up, 3 more changed; 1 B → 2 B (+1 B); 5 B to download (1 path)</summary>",
  );
  expect(text).toContain("| up | linux | 6.6.1 → 6.6.2 |\n| | and 3 more | |");
  expect(text).toContain("<pre>starting\n&lt;/pre&gt;&lt;b&gt;\n \n");
  expect(text).toEndWith("<sub>ada, acme/fleet&#64;0123456789ab (refs/heads/&#60;b&#62;)</sub>\n\n");
});

test("nothing of a device is more than text", () => {
  const escaped = escapeMarkdown(NASTY);
  expect(escaped.replaceAll(/&#\d+;/g, "")).toMatch(/^[\w .();/=-]*$/);
  expect(escaped).toStartWith("&#124; &#60;script&#62;alert(1)");
  const text = summaryOf();
  expect(text).not.toContain("<script");
  expect(text.replace(/<pre>.*<\/pre>/s, "")).not.toContain("[x](");
  // What is shown is the same for people.
  const decoded = escaped.replaceAll(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)));
  expect(decoded).toBe(NASTY.replace("\n", " ").replace("\u001b[31m", ""));
});

test("of thousands it stays small, and what went wrong comes first", () => {
  const text = summaryOf(5_000);
  expect(text.length).toBeLessThan(200_000);
  expect(text.split("\n").find((line) => line.startsWith("| [nuc"))).toContain("rolled-back");
  expect(text).toContain("| and 4800 more | | | |");
});

test("the log is shown of what failed only, although CI has read all of them", () => {
  expect(summaryOf(3).match(/<summary>Log of/g)).toHaveLength(1);
});

test("devices that say as much as they can do not make it larger than the runner takes", () => {
  const text = summaryOf(300, { reason: "😀".repeat(1_000), lines: Array(50).fill("<&>".repeat(400)) });
  expect(Buffer.byteLength(text)).toBeLessThan(500_000);
  expect(text).toContain("<summary>Log of nuc-0");
  expect(text).toContain("There is more than this page can take");
});

test.each([
  ["- item", "&#45; item"],
  ["+1 B", "&#43;1 B"],
  ["12. item", "12&#46; item"],
  ["6.6.1 → 6.6.2", "6.6.1 → 6.6.2"],
  ["===", "&#61;=="],
  ["costs $x^2$", "costs &#36;x&#94;2&#36;"],
  ["see WWW.evil.example", "see WWW&#46;evil.example"],
  ["\u009b2J\u202ea\r\n b", "2Ja b"],
])("%j as text", (text, escaped) => {
  expect(escapeMarkdown(text)).toBe(escaped);
});
