/** One try to hand a delivery to its receiver, which has taken it when it answers 2xx in time. Nothing is stored here. */
import { describeError, NixdeployError } from "../../errors.ts";
import type { HttpClient, PostAnswer } from "../../http/client.ts";
import type { Clock } from "../../runtime.ts";
import type { WebhookRow } from "../database/webhooks.ts";
import { listSecrets, type Secrets, secretsAt } from "./secrets.ts";
import { signDelivery } from "./signature.ts";

export const ATTEMPT_DEADLINE_MS = 15_000;

export type Attempt = {
  readonly atMs: number;
  readonly durationMs: number;
  /** Null: there was no answer. */
  readonly status: number | null;
  /** A sentence; null: it was taken. */
  readonly error: string | null;
};

/** @throws the signal's reason when it is aborted, and nothing else */
export async function attemptDelivery(
  { http, clock }: { readonly http: Pick<HttpClient, "postBody">; readonly clock: Clock },
  sent: Pick<WebhookRow, "url"> & Secrets & { readonly id: string; readonly body: Uint8Array },
  signal: AbortSignal,
): Promise<Attempt> {
  const { url, id, body } = sent;
  const atMs = clock.nowMs();
  const secrets = listSecrets(secretsAt(sent, atMs));
  const startMs = clock.monotonicMs();
  const headers = { "content-type": "application/json", ...signDelivery({ secrets, id, atMs, body }) };
  const end = (status: number | null, error: string | null): Attempt => {
    return { atMs, durationMs: Math.round(clock.monotonicMs() - startMs), status, error };
  };
  try {
    const answer = await http.postBody({ url, headers, body, deadlineMs: ATTEMPT_DEADLINE_MS, signal });
    return end(answer.status, describeRefusal(answer));
  } catch (error) {
    signal.throwIfAborted();
    return end(null, error instanceof NixdeployError ? error.message : describeError(error));
  }
}

function describeRefusal({ status, redirectsTo }: PostAnswer): string | null {
  if (status >= 200 && status < 300) return null;
  if (redirectsTo !== null) return `it answered ${status}, a redirect to ${redirectsTo}, which is not followed`;
  return `it answered ${status}`;
}
