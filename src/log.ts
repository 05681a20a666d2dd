/**
 * The logger: the only importer of consola. Everything goes to stderr, because stdout is for results
 * (consola's own reporters write info to stdout). A terminal gets plain lines, everything else too:
 * `--log-format json` gives one JSON object per line.
 */
import { createConsola, type LogObject } from "consola/core";
import { cleanLine, cleanLines, formatJson } from "./printable.ts";

export type LogFields = Readonly<Record<string, string | number | boolean | null>>;

export type Logger = {
  /** A human must act. */
  error(message: string, fields?: LogFields): void;
  /** Degraded, heals by itself. */
  warn(message: string, fields?: LogFields): void;
  /** Lifecycle. */
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
};

export type LoggerOptions = {
  readonly verbose: boolean;
  readonly format: "text" | "json";
  readonly write: (line: string) => void;
};

const LEVEL_DEBUG = 4;
const LEVEL_INFO = 3;

export function createLogger(options: LoggerOptions): Logger {
  const format = options.format === "json" ? formatJsonLine : formatText;
  const consola = createConsola({
    level: options.verbose ? LEVEL_DEBUG : LEVEL_INFO,
    throttle: 0,
    reporters: [{ log: (entry) => options.write(format(entry)) }],
  });
  const at = (level: "error" | "warn" | "info" | "debug") => (message: string, fields?: LogFields) =>
    consola[level]({ message, args: [], fields: fields ?? {} });
  return { error: at("error"), warn: at("warn"), info: at("info"), debug: at("debug") };
}

/** A logger that says nothing, for tests and for commands whose only output is their result. */
export const silentLogger: Logger = { error() {}, warn() {}, info() {}, debug() {} };

function fieldsOf(entry: LogObject): LogFields {
  return (entry["fields"] ?? {}) as LogFields;
}

/** consola moves the message in front of the arguments. */
function messageOf(entry: LogObject): string {
  return entry.args.map(String).join(" ");
}

function formatText(entry: LogObject): string {
  const fields = Object.entries(fieldsOf(entry)).map(([key, value]) => `${key}=${formatValue(value)}`);
  const prefix = entry.type === "info" ? "" : `${entry.type}: `;
  return [`${prefix}${cleanLines(messageOf(entry))}`, ...fields].join(" ");
}

function formatValue(value: string | number | boolean | null): string {
  const text = String(value);
  return /[\s"=]/.test(text) || cleanLine(text) !== text ? formatJson(text) : text;
}

function formatJsonLine(entry: LogObject): string {
  return formatJson({
    time: entry.date.toISOString(),
    level: entry.type,
    message: messageOf(entry),
    ...fieldsOf(entry),
  });
}
