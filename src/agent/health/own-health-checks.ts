/**
 * The health checks of the device's own configuration: a JSON file, `{"healthChecks": [CHECK, …]}`, looked at when the
 * agent starts, so that a wrong one is noticed, and read again at each activation. Only here a command may be any
 * program of the device.
 */
import { type FileHandle, open } from "node:fs/promises";
import { describeError, NixdeployError } from "../../errors.ts";
import { type HealthCheck, parseOwnHealthChecks } from "../../health-check.ts";
import { quoteExcerpt } from "../../nix/parse-error.ts";

const FILE_BYTES_MAX = 1024 * 1024;
const KEY = "healthChecks";
const HINT = `It looks like {"${KEY}": [{"name": "ssh", "kind": "tcp", "port": 22}]}.`;

/**
 * @throws NixdeployError "host" when the file cannot be read, "usage" with all faults when it is not of the right form
 */
export async function readOwnHealthChecks(path: string): Promise<readonly HealthCheck[]> {
  return parseFile(await readText(path), path);
}

async function readText(path: string): Promise<string> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    throw new NixdeployError("host", `cannot read the health checks ${path}: ${describeError(cause)}`, { cause });
  }
  await using _closed = file;
  const stats = await file.stat();
  if (!stats.isFile()) throw new NixdeployError("host", `cannot read the health checks ${path}: it is no file`);
  if (stats.size > FILE_BYTES_MAX) {
    throw new NixdeployError(
      "host",
      `cannot read the health checks ${path}: it is larger than ${FILE_BYTES_MAX} bytes`,
    );
  }
  return await file.readFile("utf8");
}

/** @throws NixdeployError "usage" */
export function parseFile(text: string, path: string): readonly HealthCheck[] {
  const refuse = (details: readonly string[], cause?: unknown) =>
    new NixdeployError("usage", `cannot use the health checks ${path}: the file is not of the right form`, {
      ...{ details, hint: HINT, cause },
    });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw refuse(["it is not JSON"], cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse(["it is not an object"]);
  const unknown = Object.keys(value).filter((key) => key !== KEY);
  const faults = unknown.slice(0, 5).map((key) => `${quoteExcerpt(key)} is not known here`);
  const parsed = parseOwnHealthChecks(Object.hasOwn(value, KEY) ? Reflect.get(value, KEY) : undefined, `"${KEY}"`);
  if (parsed.kind === "faults") throw refuse([...faults, ...parsed.faults]);
  if (faults.length > 0) throw refuse(faults);
  return parsed.checks;
}
