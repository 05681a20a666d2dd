/**
 * The contract between agent and coordinator: JSON text frames on one websocket, `GET /api/v1/agent/connect`.
 *
 *     coordinator                                   agent
 *     challenge (versions, nonce)            ─►
 *                                            ◄─  hello (name, public key, signature over the challenge, machine)
 *     welcome (cache, keys, read credential) ─►      or: refused (code, message) and close
 *     offer, cancel                          ─►
 *     caches (as in the welcome, changed)    ─►
 *                                            ◄─  report (numbered entries of one deployment), progress, state, ping
 *                                            ◄─  announce (a deployment that was started on the device)
 *     acknowledge (deployment, through n)    ─►
 *     pong                                   ─►
 *
 * What must not be lost travels in `report`: every deployment has one journal on the agent's disk, its entries (log
 * lines, phases, the outcome) numbered from 1 without gaps. The agent sends from the first unacknowledged entry, again
 * after a reconnect; the coordinator stores in order, drops what it has, and acknowledges after its commit. Offers and
 * cancels need no numbers: they are restated from the coordinator's database after every welcome, and an agent that
 * knows the deployment already takes them as news of nothing. `progress` and `state` may be lost.
 *
 * A deployment that was started on the device (`nixdeploy local`) is announced on every connection before anything of it
 * is reported. The coordinator acknowledges what it has of it, `through` 0 for a new one, and only then come its reports;
 * one that answers `error` (an older version, say) gets none, and the journal stays where it is.
 *
 * Unknown fields are ignored, so that versions may differ; an unknown `kind` is answered with `error`.
 */
import { z } from "zod";
import { FAULTS, INHIBITOR_POLICIES, MODES, OUTCOMES, PHASES } from "./deployment.ts";
import { HEALTH_CHECKS_MAX } from "./health-check.ts";
import { KEY_STATEMENTS_MAX, keyStatementSchema } from "./key-statement.ts";
import { KEY_VOUCHERS_MAX, keyVoucherSchema } from "./key-voucher.ts";
import { labelsSchema } from "./labels.ts";
import { parseAgentId, parseAgentName, parseCacheName, parseDeploymentId, parseWorkspaceName } from "./names.ts";
import { parseStorePath } from "./nix/store-path.ts";
import { unitChangesSchema } from "./unit-changes.ts";

export const PROTOCOL_VERSION = 1;
export const AGENT_CONNECT_PATH = "/api/v1/agent/connect";

/** A frame larger than this ends the connection. */
export const FRAME_BYTES_MAX = 4 * 1024 * 1024;
/** Entries in one `report`. */
export const REPORT_ENTRIES_MAX = 2_000;
/** A longer line of output is cut by the agent, with a mark. */
export const LOG_LINE_CHARACTERS_MAX = 16 * 1024;
/** The agent pings this often; either side gives a silent peer up after {@link PEER_SILENCE_MAX_MS}. */
export const PING_INTERVAL_MS = 20_000;
export const PEER_SILENCE_MAX_MS = 60_000;

/** Journals that an agent keeps for a coordinator that does not take them. */
export const UNREPORTED_MAX = 100;

/** Turns a throwing `parse…` into a zod schema whose output carries the brand. */
export function parsedWith<Value>(parse: (text: string) => Value) {
  return z.string().transform((text, context): Value => {
    try {
      return parse(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
      return z.NEVER;
    }
  });
}

/**
 * The same for a list of at most `lengthMax`. It ends at the first text that does not parse: a request may hold
 * millions, and each fault costs far more than its text.
 */
export function parsedListWith<Value>(parse: (text: string) => Value, lengthMax: number) {
  return z
    .custom<string[]>((value) => isShortTextList(value, lengthMax), `expected at most ${lengthMax} texts`)
    .meta({ type: "array", items: { type: "string" }, maxItems: lengthMax })
    .transform((texts, context): Value[] => {
      const values: Value[] = [];
      for (const [index, text] of texts.entries()) {
        try {
          values.push(parse(text));
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          context.addIssue({ code: "custom", message, path: [index] });
          return z.NEVER;
        }
      }
      return values;
    });
}

function isShortTextList(value: unknown, lengthMax: number): boolean {
  return Array.isArray(value) && value.length <= lengthMax && value.every((item) => typeof item === "string");
}

export const storePathSchema = parsedWith(parseStorePath);
const deploymentId = parsedWith(parseDeploymentId);
const count = z.number().int().nonnegative();
const shortText = z.string().max(4_096);

/** Names that are told; a machine where everything fails has thousands. */
export const FAILED_UNITS_MAX = 50;
const REBOOT_REASONS_MAX = 16;

/** What is really on the machine, as far as this agent's profile goes. Paths are null when there is none. */
export const machineStateSchema = z.object({
  /** What the profile link names. */
  profilePath: storePathSchema.nullable(),
  generation: count.nullable(),
  /** /run/current-system and /run/booted-system; null where the machine has none. */
  currentPath: storePathSchema.nullable(),
  bootedPath: storePathSchema.nullable(),
  /** The system whose specialisation /run/current-system is; null when it is none. */
  currentBasePath: storePathSchema.nullable().optional(),
  /** What differs between the running and the booted system, such as "kernel"; null where it cannot be told. */
  rebootNeeded: z.array(shortText).max(REBOOT_REASONS_MAX).nullable().optional(),
  /** The first of them by name, and how many there are; null where no service manager tells. */
  failedUnits: z.array(shortText).max(FAILED_UNITS_MAX).nullable().optional(),
  failedUnitCount: count.nullable().optional(),
  /** Free bytes of the file system of the Nix store. */
  storeFreeBytes: count.nullable(),
  /** The deployment this agent works on, if any. */
  inFlight: deploymentId.nullable(),
  /** Those it has a journal of besides: it has not forgotten them, although it does not work on them. */
  unreported: z.array(deploymentId).max(UNREPORTED_MAX).optional(),
});
export type MachineState = z.output<typeof machineStateSchema>;

export const helloSchema = z.object({
  kind: z.literal("hello"),
  protocolVersion: count,
  agentVersion: shortText,
  name: parsedWith(parseAgentName),
  /** Raw ed25519 public key and signature over `loginMessage`, base64. */
  publicKey: z.string().max(64),
  signature: z.string().max(128),
  /** The agent token, sent only by an agent that has not been admitted yet. */
  enrolmentToken: z.string().max(256).optional(),
  /** Nix's name of the platform, such as `x86_64-linux`. */
  system: shortText,
  hostName: shortText,
  nixVersion: shortText.nullable(),
  /** Path of the profile this agent keeps. */
  profile: shortText,
  state: machineStateSchema,
  /** A key that is to take the place of this one: raw, and signatures by both over `rotationMessage`, base64. */
  rotate: z
    .object({ publicKey: z.string().max(64), signature: z.string().max(128), newSignature: z.string().max(128) })
    .optional(),
  /** As the device sets them; the operator's count first. */
  labels: labelsSchema.optional(),
  /** This login is the proof of an activation: the new version runs, and reaches the coordinator. Signed with it. */
  proof: z.object({ deploymentId, by: z.enum(["agent", "supervisor"]) }).optional(),
});
export type Hello = z.output<typeof helloSchema>;

const HOUR_MS = 3_600_000;
/** {@link ActivationPolicy} on the wire. */
export const activationPolicySchema = z.object({
  onUnitFailure: z.enum(["rollback", "keep"]).optional(),
  confirmWindowMs: z.number().int().min(1_000).max(HOUR_MS).optional(),
  activationTimeoutMs: z
    .number()
    .int()
    .min(1_000)
    .max(24 * HOUR_MS)
    .optional(),
  reboot: z.boolean().optional(),
  inhibitors: z.enum(INHIBITOR_POLICIES).optional(),
  allowUnprovenBoot: z.boolean().optional(),
  allowAgentRemoval: z.boolean().optional(),
});

const entryBase = { n: z.number().int().positive(), atMs: count };

export const reportEntrySchema = z.discriminatedUnion("type", [
  z.object({
    ...entryBase,
    type: z.literal("log"),
    /** `agent`: what nixdeploy says; `out` and `err`: what the activated programs print. */
    stream: z.enum(["agent", "out", "err"]),
    text: z.string().max(LOG_LINE_CHARACTERS_MAX + 100),
  }),
  z.object({
    ...entryBase,
    type: z.literal("phase"),
    phase: z.enum(PHASES),
    /** What the profile named before this deployment, once known. */
    previousPath: storePathSchema.nullable(),
    /** How long the new version may take to prove itself, as the device has decided: its own setting may count. */
    confirmWindowMs: count.optional(),
  }),
  z.object({
    ...entryBase,
    type: z.literal("outcome"),
    outcome: z.enum(OUTCOMES),
    /** One sentence. */
    reason: shortText,
    previousPath: storePathSchema.nullable(),
    /** Compressed bytes downloaded, and exit code of the activation script; null when it did not come to that. */
    fetchedBytes: count.nullable(),
    exitCode: z.number().int().nullable(),
    /** Milliseconds spent in each phase. */
    phaseMs: z.partialRecord(z.enum(PHASES), count),
    /** Absent where nothing was touched, and where it is nobody's fault: a cancel, a power cut. */
    fault: z.enum(FAULTS).optional(),
    /** What a dry activation says it would do. */
    unitChanges: unitChangesSchema.optional(),
  }),
]);
export type ReportEntry = z.output<typeof reportEntrySchema>;

export const reportSchema = z.object({
  kind: z.literal("report"),
  deploymentId,
  entries: z.array(reportEntrySchema).min(1).max(REPORT_ENTRIES_MAX),
});

/** Answered with `acknowledge`, or with `error`: then nothing of it is reported on this connection. */
export const announceSchema = z.object({
  kind: z.literal("announce"),
  deploymentId,
  storePath: storePathSchema,
  mode: z.enum(MODES),
  policy: activationPolicySchema.optional(),
  /** By the device's clock. */
  startedAtMs: count,
  /** The device's name of the user who did; null when it has none. */
  startedBy: z
    .string()
    .regex(/^[\w.@-]{1,64}$/)
    .nullable(),
});
export type Announcement = z.output<typeof announceSchema>;

export const progressSchema = z.object({
  kind: z.literal("progress"),
  deploymentId,
  paths: count,
  pathsTotal: count,
  /** Compressed bytes. */
  bytes: count,
  bytesTotal: count,
});
export type Progress = z.output<typeof progressSchema>;

export const agentFrameSchema = z.discriminatedUnion("kind", [
  helloSchema,
  reportSchema,
  announceSchema,
  progressSchema,
  z.object({ kind: z.literal("state"), state: machineStateSchema }),
  z.object({ kind: z.literal("ping") }),
  z.object({ kind: z.literal("error"), code: shortText, message: shortText }),
]);
/** A frame from an agent, as parsed by the coordinator. */
export type AgentFrame = z.output<typeof agentFrameSchema>;

export const challengeSchema = z.object({
  kind: z.literal("challenge"),
  /** The protocol versions that this coordinator speaks, both inclusive. */
  protocolVersions: z.object({ min: count, max: count }),
  coordinatorVersion: shortText,
  /** Base64; what the hello signs. */
  nonce: z.string().min(16).max(128),
});

/** Further caches of a workspace that are told; more than a workspace may have. */
const SUBSTITUTERS_MAX = 64;

const cacheFields = {
  name: parsedWith(parseCacheName),
  /** `name:base64`. Pinned by the agent at first contact; later ones do not replace the pins. */
  publicKeys: z.array(z.string().max(256)).max(16),
  /** What its earlier keys have said of their successors: by these alone do pins move. */
  keyStatements: z.array(keyStatementSchema).max(KEY_STATEMENTS_MAX).optional(),
};
const cachePath = z.string().regex(/^\/[\w./-]+$/);

/** A cache besides the first, asked for what the ones before it lack. The read credential is for our own only. */
export const substituterSchema = z.discriminatedUnion("own", [
  z.object({ ...cacheFields, own: z.literal(true), path: cachePath }),
  z.object({ ...cacheFields, own: z.literal(false), url: z.string().max(1_000) }),
]);
export type Substituter = z.output<typeof substituterSchema>;

const toldCaches = {
  /** `path` is below the coordinator's URL, such as `/cache/default`. */
  cache: z.object({ ...cacheFields, path: cachePath }),
  /** In the order in which they are asked. */
  substituters: z.array(substituterSchema).max(SUBSTITUTERS_MAX).optional(),
  /** For their keys, by keys that this device may trust already. */
  keyVouchers: z.array(keyVoucherSchema).max(KEY_VOUCHERS_MAX).optional(),
};

/** What the welcome said of caches is no more; in its place. */
export const cachesSchema = z.object({ kind: z.literal("caches"), ...toldCaches });
export type ToldCaches = Omit<z.output<typeof cachesSchema>, "kind">;

export const welcomeSchema = z.object({
  kind: z.literal("welcome"),
  agentId: parsedWith(parseAgentId),
  /** The key that the hello brought is the agent's from now on, as the hello wrote it. */
  rotatedTo: z.string().max(64).optional(),
  /** The agent's name here, when the operator gave it another one than the hello said. */
  name: parsedWith(parseAgentName).optional(),
  workspace: parsedWith(parseWorkspaceName),
  ...toldCaches,
  /** Bearer credential to read the cache and to ask for plans, renewed with every welcome. */
  readCredential: z.string().max(512),
  /** The coordinator takes this login for the proof of that deployment: what it reports is what was asked for. */
  proved: deploymentId.optional(),
});
export type Welcome = z.output<typeof welcomeSchema>;

export const REFUSAL_CODES = [
  /** The key is unknown and no valid token came along. */
  "not-enrolled",
  /** The name belongs to another key. */
  "name-taken",
  /** The key is registered under another name. */
  "other-name",
  /** The operator removed the agent that had this key. */
  "removed",
  /** The agent has another key now, or the operator does not want this one. */
  "key-retired",
  "bad-signature",
  "token-refused",
  "version",
] as const;
export type RefusalCode = (typeof REFUSAL_CODES)[number];

export const refusedSchema = z.object({
  kind: z.literal("refused"),
  /** A code of a newer coordinator is taken as `other`: its message says what it is about. */
  code: z.enum(REFUSAL_CODES).or(
    z
      .string()
      .max(64)
      .transform((): "other" => "other"),
  ),
  message: shortText,
  hint: shortText.optional(),
});

export const offerSchema = z.object({
  kind: z.literal("offer"),
  deploymentId,
  storePath: storePathSchema,
  mode: z.enum(MODES),
  /** Run after activation on the agent's kind of system; a failure rolls back. */
  rollbackScript: storePathSchema.nullable(),
  policy: activationPolicySchema.optional(),
  /** A person wants it although it may have failed on this device before: its quarantine is lifted. */
  retry: z.boolean().optional(),
  /**
   * `HealthCheck`s, which the agent parses when it works on them: one that it does not know ends the deployment, not the
   * connection.
   */
  healthChecks: z.array(z.unknown()).max(HEALTH_CHECKS_MAX).optional(),
});
export type Offer = z.output<typeof offerSchema>;

export const coordinatorFrameSchema = z.discriminatedUnion("kind", [
  challengeSchema,
  welcomeSchema,
  refusedSchema,
  offerSchema,
  cachesSchema,
  z.object({ kind: z.literal("cancel"), deploymentId }),
  /** Everything up to and including `through` is stored. */
  z.object({ kind: z.literal("acknowledge"), deploymentId, through: count }),
  z.object({ kind: z.literal("pong") }),
  z.object({ kind: z.literal("error"), code: shortText, message: shortText }),
]);
/** A frame from the coordinator, as parsed by the agent. */
export type CoordinatorFrame = z.output<typeof coordinatorFrameSchema>;

/** What either side may send: frames before parsing, without brands. */
export type AgentFrameInput = z.input<typeof agentFrameSchema>;
export type CoordinatorFrameInput = z.input<typeof coordinatorFrameSchema>;
