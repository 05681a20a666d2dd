/** How results look on stdout: JSON with `--json`, else text; and the pieces that such text is made of. */
import { cleanLine, cleanLines, formatJson } from "../../printable.ts";
import type { CommandContext, Environment } from "../command-line/context.ts";

export type Result = {
  /** What `--json` prints: a stable contract with scripts. */
  readonly json: unknown;
  /** What a person reads; "" prints nothing. */
  readonly text: string;
};

/** Prints the one result of a command. */
export async function printResult(context: Pick<CommandContext, "stdout" | "json">, result: Result): Promise<void> {
  const text = context.json ? formatJson(result.json, 2) : cleanLines(result.text);
  if (text !== "") {
    await context.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
  }
}

/** Prints one JSON document on a line of its own: for commands whose result is a stream. */
export async function printJsonLine(context: Pick<CommandContext, "stdout">, value: unknown): Promise<void> {
  await context.stdout.write(`${formatJson(value)}\n`);
}

/** Columns as wide as their widest cell, two spaces apart, no lines around them; the header in capitals. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header.map((cell) => cell.toUpperCase()), ...rows.map((row) => row.map(cleanCell))];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => Bun.stringWidth(line[column] ?? ""))));
  return lines
    .map((line) =>
      line
        .map((cell, column) => padCell(cell, widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** On one line: a cell that breaks it would look like another row. */
function cleanCell(cell: string): string {
  return cleanLine(cell.replaceAll(/[\t\r\n]+/g, " "));
}

/** `padEnd` counts the bytes of colors and half of a wide character. */
function padCell(cell: string, width: number): string {
  return cell + " ".repeat(Math.max(0, width - Bun.stringWidth(cell)));
}

export type Style = {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly red: (text: string) => string;
  readonly green: (text: string) => string;
  readonly yellow: (text: string) => string;
};

/** Colors on a terminal; plain text elsewhere, with `NO_COLOR` (no-color.org: set and not empty), and on a dumb terminal. */
export function createStyle({ isTerminal, env }: { readonly isTerminal: boolean; readonly env: Environment }): Style {
  const isPlain = !isTerminal || (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb";
  const paint = (start: number, end: number) => (text: string) =>
    isPlain || text === "" ? text : `\u001b[${start}m${text}\u001b[${end}m`;
  return { bold: paint(1, 22), dim: paint(2, 22), red: paint(31, 39), green: paint(32, 39), yellow: paint(33, 39) };
}
