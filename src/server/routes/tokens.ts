/** /api/v1/tokens: make, list, revoke. For admins. */
import { z } from "zod";
import { tokenId } from "../../api/fields.ts";
import {
  type CreatedToken,
  createdTokenSchema,
  createTokenSchema,
  type Identity,
  identitySchema,
  tokenListSchema,
} from "../../api/tokens.ts";
import { NixdeployError } from "../../errors.ts";
import { type AgentName, drawId, parseTokenId } from "../../names.ts";
import type { Clock, Random } from "../../runtime.ts";
import { formatToken, parseToken, secretSha256, type TokenKind } from "../../token.ts";
import { TOKENS_TOPIC } from "../access/authentication.ts";
import { mayDo } from "../access/authorization.ts";
import { tokenToDto } from "../convert.ts";
import { findToken, insertToken, listTokens, revokeToken, type TokenRow } from "../database/tokens.ts";
import { findWorkspaceById, type WorkspaceRow } from "../database/workspaces.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { findTargetWorkspace, noteAct, type RouteContext, requireOperator, visibleWorkspaces } from "./context.ts";
import { LIST_PAGES, parseCursor, toPage } from "./pages.ts";
import { defineRoute, NOTHING, type Route } from "./route.ts";

const SECRET_BYTES = 32;
/** 100 years: later moments have no four-digit year. */
const LIFETIME_MS_MAX = 100 * 365 * 24 * 60 * 60 * 1000;

export function createTokenRoutes(services: Services): readonly Route[] {
  return [createOne(services), listAll(services), revokeOne(services), identify(services)];
}

function createOne(services: Services): Route {
  return defineRoute({
    ...{ method: "POST", path: "/tokens", right: "administrate" },
    summary: "Make a token; its secret is in this answer only",
    body: createTokenSchema,
    answers: { 201: createdTokenSchema },
    async handle(context, { readBody }) {
      const request = await readBody();
      const workspace = await findTokenWorkspace(services, context, request);
      if ((request.expiresInMs ?? 0) > LIFETIME_MS_MAX) {
        throw new NixdeployError("usage", "cannot make the token: it would expire after more than 100 years", {
          hint: "Leave the expiry out for a token that does not expire.",
        });
      }
      if (request.kind !== "agent" && (request.agent ?? request.usesMax) !== undefined) {
        throw new NixdeployError(
          "usage",
          "cannot make the token: only one of kind agent is bound to a name or to uses",
        );
      }
      const { row, token } = makeToken(services, {
        kind: request.kind,
        workspaceId: workspace?.id ?? null,
        description: request.description ?? "",
        expiresInMs: request.expiresInMs ?? null,
        agentName: request.agent ?? null,
        usesMax: request.usesMax ?? null,
      });
      await insertToken(services.database, row);
      noteAct(context, {
        target: `token ${row.id}`,
        effect: `made, ${["kind", row.kind, row.description].join(" ").trim()}`,
      });
      const created: CreatedToken = {
        id: row.id,
        token,
        kind: row.kind,
        workspace: workspace?.name ?? null,
        expiresAt: tokenToDto(row, new Map()).expiresAt,
      };
      return context.json(created, 201);
    },
  });
}

/** Null: the token is to be good everywhere. @throws NixdeployError */
async function findTokenWorkspace(
  services: Services,
  context: RouteContext,
  request: z.output<typeof createTokenSchema>,
): Promise<WorkspaceRow | null> {
  if (request.global !== true) {
    return await findTargetWorkspace(services, context, { name: request.workspace, right: "administrate" });
  }
  requireOperator(context);
  if (request.kind !== "admin" || request.workspace !== undefined) {
    throw new NixdeployError("usage", "cannot make the token: only one of kind admin, without a workspace, is global");
  }
  return null;
}

function listAll(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/tokens", right: "administrate" },
    summary: "List the tokens, newest first",
    query: z.object({ workspace: z.string().optional(), ...LIST_PAGES }),
    answers: { 200: tokenListSchema },
    async handle(context, { query }) {
      const visible = await visibleWorkspaces(services, context, "administrate");
      const { limit } = query;
      const [createdMs, id] = parseCursor(query.after, z.tuple([z.number(), tokenId])) ?? [];
      const rows = await listTokens(services.database, {
        workspaceIds: [...visible.keys()],
        isGlobal: query.workspace === undefined && mayDo(context.get("principal"), "operate", ""),
        after: createdMs === undefined || id === undefined ? null : { createdMs, id },
        limit: limit + 1,
      });
      const { page, next } = toPage(rows, { limit, cursorOf: (row) => [row.created_ms, row.id] });
      return context.json({ tokens: page.map((row) => tokenToDto(row, visible)), next });
    },
  });
}

function revokeOne(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: "/tokens/:id", right: "administrate" },
    summary: "Revoke a token, with immediate effect",
    answers: { 204: NOTHING },
    async handle(context) {
      const id = readTokenId(context.req.param("id") ?? "");
      const row = await findToken(services.database, id);
      if (row === null || !mayDo(context.get("principal"), "administrate", row.workspace_id ?? "")) {
        throw notFound(`the token ${id}`);
      }
      await revokeToken(services.database, { id: row.id, atMs: services.clock.nowMs() });
      services.bus.publish(TOKENS_TOPIC);
      noteAct(context, {
        workspaceId: row.workspace_id,
        target: `token ${row.id}`,
        effect: `revoked, kind ${row.kind}`,
      });
      services.log.info("token revoked", { id: row.id, kind: row.kind });
      return context.body(null, 204);
    },
  });
}

function identify(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/identity", right: "identify" },
    summary: "What the token of this request is",
    answers: { 200: identitySchema },
    async handle(context) {
      const principal = context.get("principal");
      if (principal.kind === "agent") throw notFound("/api/v1/identity");
      const row = principal.kind === "token" ? await findToken(services.database, principal.tokenId) : null;
      const workspace =
        row === null || row.workspace_id === null ? null : await findWorkspaceById(services.database, row.workspace_id);
      const names = new Map(workspace === null ? [] : [[workspace.id, workspace.name]]);
      const identity: Identity = {
        token: row === null ? null : tokenToDto(row, names),
        now: new Date(services.clock.nowMs()).toISOString(),
        version: services.version,
      };
      return context.json(identity);
    },
  });
}

/** A new token and the row that remembers its hash. */
export function makeToken(
  deps: { readonly clock: Clock; readonly random: Random },
  wanted: {
    readonly kind: TokenKind;
    readonly workspaceId: string | null;
    readonly description: string;
    readonly expiresInMs: number | null;
    /** Of kind agent: the only agent that it admits, and how many; null: any. */
    readonly agentName?: AgentName | null;
    readonly usesMax?: number | null;
  },
): { readonly row: TokenRow; readonly token: string } {
  const token = formatToken(wanted.kind, parseTokenId(drawId(deps.random)), deps.random.bytes(SECRET_BYTES));
  const parsed = parseToken(token);
  if (parsed === null) throw new Error("a token that we made ourselves does not parse");
  const nowMs = deps.clock.nowMs();
  const row: TokenRow = {
    id: parsed.id,
    workspace_id: wanted.workspaceId,
    kind: wanted.kind,
    secret_sha256: secretSha256(parsed.secret),
    description: wanted.description,
    created_ms: nowMs,
    expires_ms: wanted.expiresInMs === null ? null : nowMs + wanted.expiresInMs,
    last_used_ms: null,
    revoked_ms: null,
    agent_name: wanted.agentName ?? null,
    uses_max: wanted.usesMax ?? null,
    uses: 0,
  };
  return { row, token };
}

/** Accepts a whole token too, so that one found in a log can be revoked as it is. */
function readTokenId(text: string) {
  const token = parseToken(text);
  if (token !== null) return token.id;
  try {
    return parseTokenId(text);
  } catch (cause) {
    throw new NixdeployError("usage", "cannot find the token: an id has 16 lower-case letters and digits", { cause });
  }
}
