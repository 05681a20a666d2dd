/**
 * What this agent remembers of its coordinator between starts: `enrolment.json` in the state directory.
 *
 * Its presence means that the coordinator has admitted this key, so that the agent token need not be sent again. It
 * also pins the cache's public keys: those of the first contact stay, whatever later contacts say, because otherwise
 * whoever holds the coordinator could replace them and run anything as root. They move only by statements that the
 * pinned keys themselves have signed (`key-statement.ts`).
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { followKeyStatements, type KeyStatement } from "../../key-statement.ts";
import { takenVoucherSchema } from "../../key-voucher.ts";
import { parseAgentId, parseCacheName, parseWorkspaceName } from "../../names.ts";
import { parsedWith, type Welcome } from "../../protocol.ts";
import { writeDurableFile } from "../machine/durable-file.ts";
import { describeFileFault, isMissing } from "../machine/system-error.ts";

const enrolmentSchema = z.object({
  coordinatorUrl: z.string(),
  agentId: parsedWith(parseAgentId),
  workspace: parsedWith(parseWorkspaceName),
  /** `name:base64`; empty when the first contact offered none or keys were given by --trusted-public-key. */
  pinnedPublicKeys: z.array(z.string()),
  /** Which cache they are of: the workspace's first one at that contact. Absent in what older versions wrote. */
  pinnedCache: parsedWith(parseCacheName).optional(),
  /** The keys of its other caches, by name (`substituter-pins.ts`). */
  substituterPins: z.record(z.string(), z.array(z.string())).optional(),
  /** Those that were the coordinator's own at that contact: their keys may vouch for others. */
  ownCaches: z.array(parsedWith(parseCacheName)).optional(),
  /** By name, what was taken last of what was vouched for. */
  vouched: z.record(z.string(), takenVoucherSchema).optional(),
});
export type Enrolment = z.output<typeof enrolmentSchema>;

const FILE_NAME = "enrolment.json";

/**
 * @returns null before the first contact
 * @throws NixdeployError("host") when the file is damaged: pins are never forgotten silently
 */
export async function readEnrolment(stateDirectory: string): Promise<Enrolment | null> {
  const path = join(stateDirectory, FILE_NAME);
  try {
    return enrolmentSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    if (isMissing(error)) return null;
    throw new NixdeployError("host", `cannot read ${path}: ${describeFileFault(error)}`, {
      hint: "Remove the file to let the agent enroll again; it then pins the coordinator's present cache keys.",
      cause: error,
    });
  }
}

export async function writeEnrolment(stateDirectory: string, enrolment: Enrolment): Promise<void> {
  const text = `${JSON.stringify(enrolment, null, 2)}\n`;
  await writeDurableFile({ path: join(stateDirectory, FILE_NAME), text, mode: 0o600 });
}

/**
 * Whether there is nothing new to write: a disk that takes no writes must not keep an agent from being heard. By value,
 * since what was read and what was made name their fields in another order.
 */
export function isSameEnrolment(before: Enrolment | null, now: Enrolment): boolean {
  return isDeepStrictEqual(before, now);
}

export type PinDecision = {
  /** The keys to record. */
  readonly pinned: readonly string[];
  /** What a person should know, a sentence each. */
  readonly news: readonly string[];
  readonly warnings: readonly string[];
};

/**
 * Which cache keys to pin after a welcome. Pure.
 *
 * Keys given by the operator win: nothing is pinned from the wire, and no statement moves them, because the device would
 * then run with other keys than its configuration says. Otherwise the first keys stay, but for what they have signed.
 */
export function planPins(options: {
  /** From --trusted-public-key, `name:base64`. */
  readonly given: readonly string[];
  readonly pinned: readonly string[];
  readonly cache: Pick<Welcome["cache"], "name" | "publicKeys" | "keyStatements">;
}): PinDecision {
  const { given, pinned, cache } = options;
  const statements = cache.keyStatements ?? [];
  if (given.length > 0) {
    const { followed } = followKeyStatements({ cache: cache.name, pinned: given, statements });
    return { pinned, news: [], warnings: followed.slice(-1).map(describeNotGiven) };
  }
  if (pinned.length === 0) {
    const isNone = cache.publicKeys.length === 0;
    const warnings = isNone ? ["the coordinator named no cache key: nothing can be deployed yet"] : [];
    return { pinned: [...cache.publicKeys], news: [], warnings };
  }
  const moved = followKeyStatements({ cache: cache.name, pinned, statements });
  const unknown = cache.publicKeys.filter((key) => !moved.pinned.includes(key));
  const isForeign = unknown.length > 0 ? [describeUnknown(unknown)] : [];
  return {
    pinned: moved.pinned,
    news: moved.followed.map(describeMove),
    warnings: [...moved.refused, ...isForeign],
  };
}

function describeMove({ oldKey, newKey, atMs }: KeyStatement): string {
  const day = new Date(atMs).toISOString().slice(0, 10);
  return `the cache has had the key ${newKey} since ${day}, as the old one (${oldKey}) says: it is pinned now`;
}

function describeNotGiven({ newKey }: KeyStatement): string {
  return (
    `the cache has another key now, for which one that was given with --trusted-public-key vouches: ${newKey}. Give that ` +
    "one to the agent; until you do, only what the old key has signed is taken"
  );
}

function describeUnknown(unknown: readonly string[]): string {
  const names = unknown.map((key) => key.slice(0, key.indexOf(":"))).join(", ");
  return (
    `the coordinator now names a cache key that this device has not pinned (${names}); it is ignored, because no pinned key ` +
    "vouches for it. If you changed the key, give the agent the new one with --trusted-public-key; if you did not, somebody " +
    "else did"
  );
}
