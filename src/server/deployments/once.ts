/**
 * Starting a rollout once, however often it is asked for with the same idempotency key: the answer to the first request
 * may get lost after its commit, and the caller (a CI job, our own HTTP client) sends it again.
 *
 * A key belongs to the token that it came with and is good for a day. It stands in the database since the transaction
 * that wrote its rollout, so that a coordinator that was killed in between knows both or neither. The same key with
 * another request is a mistake of the caller, and refused. What merely describes the request (who asks, for what
 * reason) may differ.
 */
import { createHash } from "node:crypto";
import { NixdeployError } from "../../errors.ts";
import type { RolloutId } from "../../names.ts";
import { findRollout, type RolloutRow } from "../database/deployments.ts";
import { findIdempotencyKey, insertIdempotencyKey } from "../database/idempotency.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

export type Once = {
  /** The token's id; "control" for the control socket. */
  readonly owner: string;
  readonly key: string;
  /** Of what is asked for; see {@link fingerprintOf}. */
  readonly fingerprint: string;
  readonly nowMs: number;
};

export type StartedRollout = {
  readonly rollout: RolloutRow;
  /** An earlier request with this key has started it; this one has changed nothing. */
  readonly isRepeat: boolean;
};

export const IDEMPOTENCY_KEY = /^[!-~]{1,255}$/;
const GOOD_FOR_MS = 24 * 3_600_000;
const DESCRIPTIVE = ["origin", "description"];

/** The same for requests that ask for the same, in whatever order their fields come. @param request JSON */
export function fingerprintOf(action: string, request: Readonly<Record<string, unknown>>): string {
  const asked = Object.fromEntries(Object.entries(request).filter(([name]) => !DESCRIPTIVE.includes(name)));
  return createHash("sha256")
    .update(`${action}\n${JSON.stringify(sorted(asked))}`)
    .digest("hex");
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, item]) => [name, sorted(item)]));
}

/**
 * @param once null: without a key, every request starts a rollout of its own
 * @throws NixdeployError `refused` when the key came with another request before · whatever `start` throws
 */
export async function startOnce(
  database: CoordinatorDatabase,
  once: Once | null,
  start: () => Promise<RolloutRow>,
): Promise<StartedRollout> {
  const before = await findStarted(database, once);
  if (before !== null) return { rollout: before, isRepeat: true };
  try {
    return { rollout: await start(), isRepeat: false };
  } catch (error) {
    // The same request may have won meanwhile: then the key stands, or what was asked for is under way already.
    const winner = await findStarted(database, once);
    if (winner === null) throw error;
    return { rollout: winner, isRepeat: true };
  }
}

async function findStarted(database: CoordinatorDatabase, once: Once | null): Promise<RolloutRow | null> {
  if (once === null) return null;
  const row = await findIdempotencyKey(database, { ...once, sinceMs: once.nowMs - GOOD_FOR_MS });
  if (row === null) return null;
  if (row.fingerprint !== once.fingerprint) {
    throw new NixdeployError(
      "refused",
      "cannot start the rollout: its idempotency key came with another request before",
      {
        details: [`rollout ${row.rollout_id} was started with this key`],
        hint: "Use a new key for a new request; a key is good for 24 hours.",
      },
    );
  }
  return await findRollout(database, row.rollout_id);
}

/** In the transaction that writes the rollout. Fails when another request has used the key since it was looked for. */
export async function claimKey(
  transaction: CoordinatorDatabase,
  { once, rolloutId }: { readonly once: Once | null; readonly rolloutId: RolloutId },
): Promise<void> {
  if (once === null) return;
  const { owner, key, fingerprint, nowMs } = once;
  const row = { owner, key, fingerprint, rollout_id: rolloutId, created_ms: nowMs };
  await insertIdempotencyKey(transaction, { row, sinceMs: nowMs - GOOD_FOR_MS });
}
