/**
 * Versions that failed on this device by their own fault, and are not tried again before a person asks for it
 * (`STATE_DIR/quarantine.json`, the newest {@link ENTRIES_MAX}). Only a guard against loops: whatever is wrong with the
 * file, deployments go on, without it.
 *
 * An entry is made from the finished record of the activation, durably, before that record is forgotten: whoever is
 * killed in between finds the record again, and makes the same entry.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { AgentName } from "../../names.ts";
import type { StorePath } from "../../nix/store-path.ts";
import { storePathSchema } from "../../protocol.ts";
import { writeDurableFile } from "../machine/durable-file.ts";
import { describeFileFault, isMissing } from "../machine/system-error.ts";
import type { ActivationRecord } from "./record.ts";

export const ENTRIES_MAX = 100;
const REASON_CHARACTERS_MAX = 500;
/** Either side of what ECMAScript can show. */
const DATE_MAX_MS = 8.64e15;

const entrySchema = z.object({
  storePath: storePathSchema,
  deploymentId: z.string(),
  outcome: z.enum(["rolled-back", "degraded"]),
  /** When that was known, by this device's clock. */
  atMs: z.number().min(-DATE_MAX_MS).max(DATE_MAX_MS),
  /** One sentence. */
  reason: z.string(),
});
/** Oldest first. */
const quarantineSchema = z.object({ version: z.literal(1), entries: z.array(entrySchema) });
export type QuarantineEntry = z.output<typeof entrySchema>;

type Ended = Pick<ActivationRecord, "deploymentId" | "storePath" | "mode" | "outcome" | "fault" | "reason">;

export type Quarantine = {
  /** @returns null when this version may be tried */
  find(storePath: StorePath): Promise<QuarantineEntry | null>;
  lift(storePath: StorePath): Promise<void>;
  /** Takes in how an activation ended. Durable on return where the disk takes it; twice is the same as once. */
  settle(ended: Ended, atMs: number): Promise<void>;
};

export function createQuarantine(options: { readonly stateDirectory: string; readonly logger: Logger }): Quarantine {
  const path = join(options.stateDirectory, "quarantine.json");
  /** What the disk did not take. */
  let unsaved: readonly QuarantineEntry[] | null = null;
  const load = async () => unsaved ?? (await readEntries(path, options.logger));
  const change = async (before: readonly QuarantineEntry[], after: readonly QuarantineEntry[]) => {
    if (after === before && unsaved === null) return;
    try {
      const text = `${JSON.stringify({ version: 1, entries: after }, null, 2)}\n`;
      await writeDurableFile({ path, text, mode: 0o600 });
      unsaved = null;
    } catch (error) {
      unsaved = after;
      options.logger.error(`cannot write ${path}: ${describeError(error)}; it holds until the agent ends`);
    }
  };
  return {
    find: async (storePath) => (await load()).findLast((entry) => entry.storePath === storePath) ?? null,
    async lift(storePath) {
      const entries = await load();
      await change(entries, without(entries, storePath));
    },
    async settle(ended, atMs) {
      const entries = await load();
      await change(entries, planEntries(entries, ended, atMs));
    },
  };
}

/** @returns the same list when nothing changes */
export function planEntries(
  entries: readonly QuarantineEntry[],
  ended: Ended,
  atMs: number,
): readonly QuarantineEntry[] {
  const { storePath, deploymentId, outcome, fault } = ended;
  if (outcome === "succeeded" && ended.mode !== "dry-activate") return without(entries, storePath);
  const isBad = fault === "version" && (outcome === "rolled-back" || outcome === "degraded");
  if (!isBad || entries.some((entry) => entry.deploymentId === deploymentId)) return entries;
  const reason = (ended.reason ?? "").slice(0, REASON_CHARACTERS_MAX);
  return [...without(entries, storePath), { storePath, deploymentId, outcome, atMs, reason }].slice(-ENTRIES_MAX);
}

function without(entries: readonly QuarantineEntry[], storePath: StorePath): readonly QuarantineEntry[] {
  const rest = entries.filter((entry) => entry.storePath !== storePath);
  return rest.length === entries.length ? entries : rest;
}

const WORDS = { "rolled-back": "was rolled back", degraded: "ended degraded" } as const;

/** Why a version in quarantine is not tried, and what to do about it. */
export function describeQuarantine({ outcome, atMs, reason }: QuarantineEntry, agentName: AgentName): string {
  const when = `${new Date(atMs).toISOString().slice(0, 16).replace("T", " ")} UTC`;
  const why = `Not tried again: this version ${WORDS[outcome]} on this device at ${when}. ${reason}`;
  return `${why} To try it all the same: nixdeploy retry ${agentName}, or activate --retry`;
}

async function readEntries(path: string, logger: Logger): Promise<readonly QuarantineEntry[]> {
  try {
    return quarantineSchema.parse(JSON.parse(await readFile(path, "utf8"))).entries;
  } catch (error) {
    if (isMissing(error)) return [];
    logger.warn(`cannot read ${path}: ${describeFileFault(error)}; no version is held back because of it`);
    return [];
  }
}
