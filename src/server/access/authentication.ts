/**
 * Who is asking: turns the credential of a request into a principal. What a principal may do is decided in
 * `authorization.ts`.
 *
 * Credentials are tokens (`nd_…`, see token.ts) and the read credentials that agents get at login
 * (`nda_<agent id>_<expiry, base 36 seconds>_<HMAC-SHA-256, base64url>`), as Bearer, or as the password of Basic with
 * any user name, so that netrc works. Secrets are compared in constant time.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type AgentId, parseAgentId, type TokenId } from "../../names.ts";
import type { Clock } from "../../runtime.ts";
import { parseToken, secretSha256, type TokenKind } from "../../token.ts";
import { findAgent } from "../database/agents.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { findToken, type TokenRow, touchToken } from "../database/tokens.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { tooManyFailedLogins, unauthorized } from "../problem.ts";
import type { FailedLogins } from "./failed-logins.ts";

export type Principal =
  /** Whoever may open the control socket: the coordinator's own user. */
  | { readonly kind: "control" }
  | {
      readonly kind: "token";
      readonly tokenKind: TokenKind;
      readonly tokenId: TokenId;
      /** Null: every workspace. */
      readonly workspaceId: string | null;
    }
  | { readonly kind: "agent"; readonly agentId: AgentId; readonly workspaceId: string };

export type Authenticator = {
  /** @returns null when there is no credential, or one that is unknown, expired or revoked */
  authenticate(authorization: string | null): Promise<Principal | null>;
  /** The same for the bare text of a token, as an agent sends it in its hello. */
  authenticateToken(token: string): Promise<Principal | null>;
  /** A credential with which an agent reads its workspace's cache for a day. */
  issueReadCredential(agentId: AgentId): string;
};

export type AuthenticatorDeps = {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  /** Key of the read credentials, 32 bytes. */
  readonly credentialKey: Uint8Array;
};

/** The topic of the bus that says that a token was revoked, or a workspace deleted: whoever answers for long asks again whether it still may. */
export const TOKENS_TOPIC = "tokens";

const READ_CREDENTIAL = /^nda_([0-9a-z]{16})_([0-9a-z]{1,11})_([\w-]{43})$/;
export const READ_CREDENTIAL_LIFETIME_MS = 24 * 60 * 60 * 1000;
/** A token's last use is written at most this often. */
const TOUCH_INTERVAL_MS = 60_000;

export function createAuthenticator(deps: AuthenticatorDeps): Authenticator {
  const authenticateToken = async (text: string): Promise<Principal | null> => {
    const token = parseToken(text);
    if (token === null) return null;
    const row = await findToken(deps.database, token.id);
    if (row === null || row.kind !== token.kind) return null;
    if (!timingSafeEqual(row.secret_sha256, secretSha256(token.secret))) return null;
    if (!isTokenValid(row, deps.clock.nowMs())) return null;
    if (deps.clock.nowMs() - (row.last_used_ms ?? 0) >= TOUCH_INTERVAL_MS) {
      await touchToken(deps.database, { id: row.id, atMs: deps.clock.nowMs() });
    }
    return { kind: "token", tokenKind: row.kind, tokenId: row.id, workspaceId: row.workspace_id };
  };
  const authenticateAgent = async (text: string): Promise<Principal | null> => {
    const [, id, expiry, mac] = READ_CREDENTIAL.exec(text) ?? [];
    if (id === undefined || expiry === undefined || mac === undefined) return null;
    const expected = credentialMac(deps.credentialKey, `${id}_${expiry}`);
    if (!timingSafeEqual(Buffer.from(expected), Buffer.from(mac))) return null;
    if (Number.parseInt(expiry, 36) * 1000 < deps.clock.nowMs()) return null;
    const agent = await findAgent(deps.database, parseAgentId(id));
    return agent === null || agent.removed_ms !== null
      ? null
      : { kind: "agent", agentId: agent.id, workspaceId: agent.workspace_id };
  };
  return {
    authenticateToken,
    async authenticate(authorization) {
      const text = credentialOf(authorization);
      if (text === null) return null;
      return text.startsWith("nda_") ? await authenticateAgent(text) : await authenticateToken(text);
    },
    issueReadCredential(agentId) {
      const expiry = Math.floor((deps.clock.nowMs() + READ_CREDENTIAL_LIFETIME_MS) / 1000).toString(36);
      return `nda_${agentId}_${expiry}_${credentialMac(deps.credentialKey, `${agentId}_${expiry}`)}`;
    },
  };
}

/** Whether a token is neither revoked nor expired at this moment. */
export function isTokenValid(row: Pick<TokenRow, "revoked_ms" | "expires_ms">, nowMs: number): boolean {
  return row.revoked_ms === null && (row.expires_ms === null || nowMs < row.expires_ms);
}

/**
 * The answer to a request without valid credentials: 401, or 429 when too many that were no good came from its address.
 * One that brought none has not failed yet: vanilla Nix and browsers ask first.
 */
export function refuseLogin(
  deps: { readonly failedLogins: FailedLogins; readonly meters: Meters },
  refused: {
    readonly authorization: string | null;
    readonly address: string | null;
    readonly scheme: "Bearer" | "Basic";
  },
): Response {
  if (refused.authorization === null) return unauthorized(refused.scheme);
  deps.meters.failedLogin("request");
  const retryAfterMs = deps.failedLogins.note(refused.address);
  return retryAfterMs === null ? unauthorized(refused.scheme) : tooManyFailedLogins(retryAfterMs);
}

/** The secret text of an Authorization header: Bearer, or the password of Basic. */
function credentialOf(authorization: string | null): string | null {
  const [scheme, value] = (authorization ?? "").trim().split(/ +/, 2);
  if (value === undefined) return null;
  switch (scheme?.toLowerCase()) {
    case "bearer":
      return value;
    case "basic": {
      const decoded = Buffer.from(value, "base64").toString("utf8");
      const colon = decoded.indexOf(":");
      return colon < 0 ? null : decoded.slice(colon + 1);
    }
    default:
      return null;
  }
}

function credentialMac(key: Uint8Array, text: string): string {
  return createHmac("sha256", key).update(`nixdeploy read credential 1\n${text}`).digest("base64url");
}
