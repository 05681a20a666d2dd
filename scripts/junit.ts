/**
 * Reads the junit report of `bun test`: what ran in each file. Only the shape that Bun writes: a `<testsuite file>` per
 * file, `describe` blocks as suites within it, and `<testcase file>` with an optional `<failure>` or `<skipped>`.
 */

export type FileReport = {
  /** As Bun writes it: relative to the directory it ran in. */
  readonly file: string;
  /** What the suite's own `tests` attribute says. */
  readonly claimedTests: number;
  readonly tests: number;
  readonly failed: number;
  /** `test.skip` and `test.skipIf`. */
  readonly skipped: number;
  /** Titles of `test.todo`, which Bun reports as skipped. */
  readonly todo: readonly string[];
};

type MutableReport = { claimedTests: number; tests: number; failed: number; skipped: number; todo: string[] };

const TAG = /<(\/?)(testsuite|testcase|failure|error|skipped)\b([^>]*?)(\/?)>/g;

/** One entry per test file in the report, in its order. */
export function parseJunit(xml: string): FileReport[] {
  const files = new Map<string, MutableReport>();
  let suiteDepth = 0;
  let current: { report: MutableReport; title: string } | null = null;
  for (const [, closing, tag, attributeText = "", selfClosing] of xml.matchAll(TAG)) {
    const attributes = parseAttributes(attributeText);
    if (closing === "/") {
      suiteDepth -= tag === "testsuite" ? 1 : 0;
      continue;
    }
    if (tag === "testsuite") {
      if (suiteDepth === 0) {
        reportOf(files, attributes).claimedTests += Number(attributes.get("tests") ?? 0);
      }
      suiteDepth += selfClosing === "/" ? 0 : 1;
    } else if (tag === "testcase") {
      current = { report: reportOf(files, attributes), title: attributes.get("name") ?? "" };
      current.report.tests += 1;
    } else if (current !== null && tag === "skipped" && attributes.get("message") === "TODO") {
      current.report.todo.push(current.title);
    } else if (current !== null) {
      current.report[tag === "skipped" ? "skipped" : "failed"] += 1;
    }
  }
  return [...files].map(([file, report]) => ({ file, ...report }));
}

function reportOf(files: Map<string, MutableReport>, attributes: ReadonlyMap<string, string>): MutableReport {
  const file = attributes.get("file") ?? "";
  const known = files.get(file);
  if (known !== undefined) {
    return known;
  }
  const created: MutableReport = { claimedTests: 0, tests: 0, failed: 0, skipped: 0, todo: [] };
  files.set(file, created);
  return created;
}

function parseAttributes(text: string): Map<string, string> {
  const pairs = text.matchAll(/([a-z]+)="([^"]*)"/g);
  return new Map([...pairs].map(([, name = "", value = ""]) => [name, unescapeXml(value)]));
}

function unescapeXml(text: string): string {
  const entities: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (whole, name: string) => entities[name] ?? whole);
}
