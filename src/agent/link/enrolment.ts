/**
 * What this agent remembers of its coordinator between starts: `enrolment.json` in the state directory.
 *
 * Its presence means that the coordinator has admitted this key, so that the agent token need not be sent again. It
 * also pins the cache's public keys: those of the first contact stay, whatever later contacts say, because otherwise
 * whoever holds the coordinator could replace them and run anything as root.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { NixdeployError } from "../../errors.ts";
import { parseAgentId, parseWorkspaceName } from "../../names.ts";
import { parsedWith } from "../../protocol.ts";
import { writeDurableFile } from "../machine/durable-file.ts";
import { describeFileFault, isMissing } from "../machine/system-error.ts";

const enrolmentSchema = z.object({
  coordinatorUrl: z.string(),
  agentId: parsedWith(parseAgentId),
  workspace: parsedWith(parseWorkspaceName),
  /** `name:base64`; empty when the first contact offered none or keys were given by --trusted-public-key. */
  pinnedPublicKeys: z.array(z.string()),
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

export type PinDecision = {
  /** The keys to record. */
  readonly pinned: readonly string[];
  /** What a person should know; null when nothing is odd. */
  readonly warning: string | null;
};

/**
 * Which cache keys to pin after a welcome. Pure.
 *
 * Keys given by the operator win, and nothing is pinned from the wire. Otherwise the first keys stay.
 */
export function planPins(options: {
  /** From --trusted-public-key, `name:base64`. */
  readonly given: readonly string[];
  readonly pinned: readonly string[];
  readonly offered: readonly string[];
}): PinDecision {
  const { given, pinned, offered } = options;
  if (given.length > 0) return { pinned, warning: null };
  if (pinned.length === 0) {
    const warning = offered.length === 0 ? "the coordinator named no cache key: nothing can be deployed yet" : null;
    return { pinned: [...offered], warning };
  }
  const unknown = offered.filter((key) => !pinned.includes(key));
  if (unknown.length === 0) return { pinned, warning: null };
  const names = unknown.map((key) => key.slice(0, key.indexOf(":"))).join(", ");
  return {
    pinned,
    warning:
      `the coordinator now names a cache key that this device has not pinned (${names}); it is ignored. If you changed the ` +
      "key, give the agent the new one with --trusted-public-key; if you did not, somebody else did",
  };
}
