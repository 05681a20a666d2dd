/** The flags that every command has. */
import type { ArgDeclarations } from "./args.ts";

export const COMMON_ARGS = {
  url: { type: "string", valueHint: "URL", description: "The coordinator's address (default: NIXDEPLOY_URL)" },
  json: { type: "boolean", description: "Print the result as JSON" },
  verbose: { type: "boolean", description: "Say more on standard error" },
  logFormat: {
    type: "enum",
    options: ["text", "json"],
    default: "text",
    description: "Form of the lines on standard error",
  },
} as const satisfies ArgDeclarations;

export type CommonValues = {
  readonly url: string | null;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly logFormat: "text" | "json";
};

/** What holds before any argument was read, for errors in the arguments themselves. */
export const COMMON_DEFAULTS: CommonValues = { url: null, json: false, verbose: false, logFormat: "text" };

/** The form that error lines should have while the command line itself is not understood yet. */
export function guessCommonValues(words: readonly string[]): CommonValues {
  const at = words.indexOf("--log-format");
  const isJson = words.includes("--log-format=json") || (at !== -1 && words[at + 1] === "json");
  return { ...COMMON_DEFAULTS, logFormat: isJson ? "json" : "text" };
}

/** @param values made by the strict parser from {@link COMMON_ARGS} */
export function parseCommonValues(values: Readonly<Record<string, unknown>>): CommonValues {
  const { url, json, verbose, logFormat } = values;
  return {
    url: typeof url === "string" ? url : null,
    json: json === true,
    verbose: verbose === true,
    logFormat: logFormat === "json" ? "json" : "text",
  };
}
