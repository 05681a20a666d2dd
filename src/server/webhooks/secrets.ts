/**
 * Which secrets a webhook signs with: its own and, for a time after it was given another one, the one before, so that
 * receivers can go over to the new one when it suits them. Two at most: a third takes the oldest one's place. Pure.
 *
 * That a delivery is signed by the old one, too, helps nobody who has stolen it: whom he can deceive is decided by what
 * receivers take.
 */
import { OLD_SECRET_DEFAULT_MS } from "../../api/webhooks.ts";
import type { WebhookRow } from "../database/webhooks.ts";

export type Secrets = Pick<WebhookRow, "secret" | "old_secret" | "old_secret_until_ms">;

const NO_OLD_SECRET = { old_secret: null, old_secret_until_ms: null } as const;

/** @param wanted.oldForMs 0: the old one signs no more; null: for as long as is usual, or as was said before */
export function planSecrets(
  before: Secrets | null,
  wanted: { readonly secret: string; readonly oldForMs: number | null; readonly nowMs: number },
): Secrets {
  const { secret, oldForMs, nowMs } = wanted;
  if (before === null) return { secret, ...NO_OLD_SECRET };
  const isNew = before.secret !== secret;
  if (!isNew && oldForMs === null) return secretsAt(before, nowMs);
  const old = isNew ? before.secret : secretsAt(before, nowMs).old_secret;
  const forMs = oldForMs ?? OLD_SECRET_DEFAULT_MS;
  if (old === null || forMs === 0) return { secret, ...NO_OLD_SECRET };
  return { secret, old_secret: old, old_secret_until_ms: nowMs + forMs };
}

/** As they are now, and nothing else of the row: an old one whose time is over is gone. */
export function secretsAt({ secret, old_secret, old_secret_until_ms }: Secrets, nowMs: number): Secrets {
  const isOver = old_secret_until_ms === null || nowMs >= old_secret_until_ms;
  return isOver ? { secret, ...NO_OLD_SECRET } : { secret, old_secret, old_secret_until_ms };
}

/** In the order of the signatures. */
export function listSecrets({ secret, old_secret: old }: Secrets): readonly string[] {
  return old === null ? [secret] : [secret, old];
}
