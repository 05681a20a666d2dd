/**
 * Health checks: what must hold before a new version may stay. The contract between spec, REST, agent frames and the
 * record of an activation; how they are carried out is the supervisor's business (`agent/health/health.ts`).
 *
 *     { "name": "web",   "kind": "http",    "url": "http://localhost/healthz", "status": [200], "followRedirects": false }
 *     { "name": "ssh",   "kind": "tcp",     "host": "127.0.0.1", "port": 22 }
 *     { "name": "nginx", "kind": "units",   "units": ["nginx.service"] }
 *     { "name": "smoke", "kind": "command", "command": ["/nix/store/…-smoke/bin/smoke", "--fast"] }
 *
 * and in each of them, if wanted, "periodSeconds", "timeoutSeconds" and "attempts".
 *
 * A command is a program and its arguments, never a text for a shell. One that comes from outside the device is a file
 * in a store path ({@link parseSpecHealthChecks}), so that it came through the signature check; only the device's own
 * configuration may name any program ({@link parseOwnHealthChecks}).
 *
 * Unknown keys and kinds are faults: a check that is misspelt must not be taken for one that passed.
 */
import { isIP } from "node:net";
import { z } from "zod";
import { quoteExcerpt } from "./nix/parse-error.ts";
import { type StorePath, storePathContaining } from "./nix/store-path.ts";

/** Of one deployment, whoever asks for them. */
export const HEALTH_CHECKS_MAX = 50;
const UNITS_MAX = 100;
const STATUSES_MAX = 50;
const WORDS_MAX = 100;
const WORD_LENGTH_MAX = 4_096;
/** Of all words of one command; 50 such checks fit into one frame. */
const COMMAND_LENGTH_MAX = 16 * 1024;
const URL_LENGTH_MAX = 2_000;
const SECONDS_MAX = 3_600;
const ATTEMPTS_MAX = 10_000;
const FAULTS_MAX = 50;
const KEYS_TOLD_MAX = 5;

const seconds = z.number().min(0.1).max(SECONDS_MAX);

const common = {
  /** What messages call it. */
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$/, "expected 1 to 64 of A-Z a-z 0-9 . _ - and space"),
  /** From the start of a try to the start of the next. */
  periodSeconds: seconds.default(2),
  /** Of one try. */
  timeoutSeconds: seconds.default(10),
  /** Failed tries after which it is given up; as many as the confirm window has room for when absent. */
  attempts: z.number().int().min(1).max(ATTEMPTS_MAX).optional(),
};

/** systemd.unit(5), with its suffix. */
const unitName = z.string().regex(/^[A-Za-z0-9:_.\\@-]{1,250}\.[a-z]{3,9}$/, "expected a unit, such as nginx.service");
const hostName = z
  .string()
  .max(253)
  .refine(
    (text) => isIP(text) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(text),
    "expected a host or an address",
  );

const healthCheckSchema = z.discriminatedUnion(
  "kind",
  [
    z.strictObject({ ...common, kind: z.literal("units"), units: shortList(unitName, UNITS_MAX) }),
    z.strictObject({
      ...common,
      kind: z.literal("tcp"),
      host: hostName.default("127.0.0.1"),
      port: z.number().int().min(1).max(65_535),
    }),
    z.strictObject({
      ...common,
      kind: z.literal("http"),
      url: z.string().max(URL_LENGTH_MAX).refine(isPlainUrl, "expected an http: or https: URL without a login in it"),
      /** The statuses that are good; 200 to 299 when absent. */
      status: shortList(z.number().int().min(100).max(599), STATUSES_MAX).optional(),
      followRedirects: z.boolean().default(false),
    }),
    z.strictObject({
      ...common,
      kind: z.literal("command"),
      command: shortList(z.string().max(WORD_LENGTH_MAX).refine(isWord, "it holds a NUL"), WORDS_MAX)
        .refine(
          (words) => words.join("").length <= COMMAND_LENGTH_MAX,
          `expected at most ${COMMAND_LENGTH_MAX} characters`,
        )
        .refine(([program = ""]) => isProgramPath(program), {
          error: "expected the absolute path of a program first",
          abort: true,
        }),
    }),
  ],
  { error: ({ code }) => (code === "invalid_union" ? "expected units, tcp, http or command" : undefined) },
);

/** With all defaults filled in. It can be parsed again. */
export type HealthCheck = z.output<typeof healthCheckSchema>;

export type ParsedHealthChecks =
  | { readonly kind: "checks"; readonly checks: readonly HealthCheck[] }
  /** One sentence each, without a full stop. */
  | { readonly kind: "faults"; readonly faults: readonly string[] };

const ownListSchema = listOf(healthCheckSchema);
/** For requests and specs: commands only from the store. */
export const specHealthCheckListSchema = listOf(
  healthCheckSchema.refine(
    (check) => check.kind !== "command" || storePathOf(check) !== null,
    `a command from outside the device must be a file of a store path, /nix/store/HASH-NAME[/…]`,
  ),
);

/** A list that came from outside the device. @param at what messages call the list */
export function parseSpecHealthChecks(value: unknown, at: string): ParsedHealthChecks {
  return parseList(specHealthCheckListSchema, value, at);
}

/** A list that the device itself has: of its configuration, or of its own record. */
export function parseOwnHealthChecks(value: unknown, at: string): ParsedHealthChecks {
  return parseList(ownListSchema, value, at);
}

/** What must be in the store for a check; null when it needs nothing, or a program of the device. */
export function storePathOf(check: HealthCheck): StorePath | null {
  return check.kind === "command" ? storePathContaining(check.command[0] ?? "") : null;
}

/** Why these cannot be checks of one deployment together; null when they can. */
export function describeClash(checks: readonly Pick<HealthCheck, "name">[]): string | null {
  if (checks.length > HEALTH_CHECKS_MAX) return `${checks.length} health checks are more than ${HEALTH_CHECKS_MAX}`;
  const names = checks.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  return twice === undefined ? null : `two health checks are called ${quoteExcerpt(twice)}`;
}

function parseList(schema: z.ZodType<HealthCheck[]>, value: unknown, at: string): ParsedHealthChecks {
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const { issues } = parsed.error;
    return { kind: "faults", faults: issues.slice(0, FAULTS_MAX).map((issue) => describeIssue(issue, value, at)) };
  }
  const clash = describeClash(parsed.data);
  return clash === null ? { kind: "checks", checks: parsed.data } : { kind: "faults", faults: [`${at}: ${clash}`] };
}

/** `"healthChecks" → 2 ("web") → "port": …` */
function describeIssue(issue: z.core.$ZodIssue, list: unknown, at: string): string {
  const [index, ...inside] = issue.path;
  const entry: unknown = Array.isArray(list) && typeof index === "number" ? list[index] : undefined;
  const name = typeof entry === "object" && entry !== null && "name" in entry ? entry.name : undefined;
  const which = typeof index === "number" ? ` → ${index + 1}` : "";
  const called = typeof name === "string" ? ` (${quoteExcerpt(name)})` : "";
  const place = inside.map((part) => ` → ${typeof part === "number" ? part + 1 : quoteExcerpt(String(part))}`).join("");
  return `${at}${which}${called}${place}: ${describeFault(issue)}`;
}

function describeFault(issue: z.core.$ZodIssue): string {
  if (issue.code !== "unrecognized_keys") return wordFault(issue.message);
  const told = issue.keys.slice(0, KEYS_TOLD_MAX).map(quoteExcerpt).join(", ");
  const more = issue.keys.length > KEYS_TOLD_MAX ? ` and ${issue.keys.length - KEYS_TOLD_MAX} more` : "";
  return `${told}${more} ${issue.keys.length === 1 ? "is" : "are"} not known here`;
}

function wordFault(message: string): string {
  if (message.endsWith(", received undefined")) return "it is missing";
  return message.replace(/^(Invalid input|Invalid string|Too small|Too big): /, "").slice(0, 200);
}

/** Counted before any item is looked at, because each wrong one is a fault to be described. */
function shortList<Item extends z.ZodType>(item: Item, lengthMax: number) {
  const isShort = (value: unknown) => Array.isArray(value) && value.length > 0 && value.length <= lengthMax;
  return z.custom<z.input<Item>[]>(isShort, `expected a list of 1 to ${lengthMax}`).pipe(z.array(item));
}

function listOf<Item extends z.ZodType>(item: Item) {
  const isShort = (value: unknown) => Array.isArray(value) && value.length <= HEALTH_CHECKS_MAX;
  return z
    .custom<z.input<Item>[]>(isShort, `expected a list of at most ${HEALTH_CHECKS_MAX} health checks`)
    .pipe(z.array(item));
}

function isPlainUrl(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
}

function isWord(text: string): boolean {
  return !text.includes("\0");
}

/** Absolute, and without parts that could lead elsewhere. */
function isProgramPath(text: string): boolean {
  const [first, ...parts] = text.split("/");
  return first === "" && parts.length > 0 && parts.every((part) => part !== "" && part !== "." && part !== "..");
}
