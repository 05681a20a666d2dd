/**
 * What every answer to bad input must be, whatever was wrong: one sentence of the form "cannot <do> to <what>: <why>",
 * below it details and a hint, no stack, nothing secret, nothing on standard output.
 */
import { expect } from "bun:test";
import type { RunResult } from "../../support/processes.ts";

export type Verdict = {
  readonly exitCode: number;
  readonly says: string;
  readonly hint?: string | undefined;
  /** What must not be in any output. */
  readonly secrets: readonly string[];
};

const ERROR = /^nixdeploy: (.*)$/;
const SENTENCE = /^cannot .+: .+[^.]$/;
const BELOW = /^( {2}- |hint: )/;
/** Signs of a program that did not know what it was saying. */
const NONSENSE =
  /this is a bug|\n\s+at |undefined|\[object |\bNaN\b|Invalid input|ZodError|\b(?:Type|Range|Reference|Syntax)Error\b/;
/** Control characters other than the newline. */
const CONTROL = /[^\P{Cc}\n]/u;

export function expectOneError(result: RunResult, { exitCode, says, hint, secrets }: Verdict): void {
  const { stderr } = result;
  const lines = stderr.trimEnd().split("\n");
  const at = lines.findIndex((line) => ERROR.test(line));
  const message = ERROR.exec(lines[at] ?? "")?.[1] ?? "";
  const below = lines.slice(at + 1);

  // The sentence first: a failed test then shows all that was printed.
  expect(stderr).toContain(says);
  expect({ exitCode: result.exitCode, stdout: result.stdout, stderr }).toEqual({ exitCode, stdout: "", stderr });
  expect(lines.filter((line) => ERROR.test(line))).toHaveLength(1);
  expect(message).toContain(says);
  expect(message).toMatch(SENTENCE);
  expect(below.filter((line) => !BELOW.test(line))).toEqual([]);
  expect(below.filter((line) => line.startsWith("hint: ")).length).toBeLessThanOrEqual(1);
  if (hint !== undefined) expect(below.join("\n")).toContain(hint);
  expect(stderr).toEndWith("\n");
  expect(stderr).not.toMatch(NONSENSE);
  expect(stderr).not.toMatch(CONTROL);
  expectNoSecret(result, secrets);
}

export function expectNoSecret(result: Pick<RunResult, "stdout" | "stderr">, secrets: readonly string[]): void {
  const output = `${result.stdout}${result.stderr}`;
  for (const secret of secrets) {
    if (output.includes(secret)) throw new Error(`the output has a secret in it:\n${output}`);
  }
}
