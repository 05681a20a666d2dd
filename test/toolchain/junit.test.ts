import { expect, test } from "bun:test";
import { parseJunit } from "../../scripts/junit.ts";

const suite = (attributes: string, content: string) => `<testsuite name="x" ${attributes}>${content}</testsuite>`;
const report = (content: string) =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites tests="9">${content}</testsuites>`;

test("nested suites claim nothing of their own", () => {
  const inner = suite('file="a.ts" tests="1"', '<testcase name="two" file="a.ts" />');
  const xml = report(suite('file="a.ts" tests="2"', `<testcase name="one" file="a.ts" />${inner}`));
  expect(parseJunit(xml)).toEqual([{ file: "a.ts", claimedTests: 2, tests: 2, failed: 0, skipped: 0, todo: [] }]);
});

test("a report with fewer tests than it claims keeps both numbers", () => {
  const xml = report(suite('file="a.ts" tests="5"', '<testcase name="one" file="a.ts" />'));
  expect(parseJunit(xml)).toMatchObject([{ claimedTests: 5, tests: 1 }]);
});

test("failures, skips and todos are told apart", () => {
  const cases = [
    '<testcase name="f" file="a.ts"><failure message="&lt;failure/&gt;">text &lt;testcase</failure></testcase>',
    '<testcase name="s" file="a.ts"><skipped /></testcase>',
    '<testcase name="later &amp; &quot;better&quot;" file="a.ts"><skipped message="TODO" /></testcase>',
  ];
  expect(parseJunit(report(suite('file="a.ts" tests="3"', cases.join("\n"))))).toEqual([
    { file: "a.ts", claimedTests: 3, tests: 3, failed: 1, skipped: 1, todo: ['later & "better"'] },
  ]);
});

test("an empty report has no files", () => {
  expect(parseJunit(report(""))).toEqual([]);
});
