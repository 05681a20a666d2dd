/** Tokens in the REST API. */
import { z } from "zod";
import { TOKEN_KINDS } from "../token.ts";
import { agentName, count, cursor, time, tokenId, workspaceName } from "./fields.ts";

export const TOKEN_DESCRIPTION_LENGTH_MAX = 200;
export const TOKEN_USES_MAX = 1_000_000;

/** POST /api/v1/tokens */
export const createTokenSchema = z
  .object({
    kind: z.enum(TOKEN_KINDS),
    workspace: workspaceName.optional(),
    /** An admin token that is good for every workspace, and for making and deleting them. */
    global: z.boolean().optional(),
    /** One line, since lists show it. */
    description: z
      .string()
      .max(TOKEN_DESCRIPTION_LENGTH_MAX)
      .regex(/^\P{Cc}*$/u, "it has a line break or another control character")
      .optional(),
    /** Milliseconds from now; never when absent. */
    expiresInMs: z.number().int().positive().optional(),
    /** Of kind `agent` only: the one agent that it admits, and how many it admits. */
    agent: agentName.optional(),
    usesMax: z.number().int().positive().max(TOKEN_USES_MAX).optional(),
  })
  .meta({ id: "CreateToken" });

export const createdTokenSchema = z
  .object({
    id: tokenId,
    /** Shown this once. */
    token: z.string(),
    kind: z.enum(TOKEN_KINDS),
    /** Null for an admin token that is good for every workspace. */
    workspace: workspaceName.nullable(),
    expiresAt: time.nullable(),
  })
  .meta({ id: "CreatedToken" });
export type CreatedToken = z.output<typeof createdTokenSchema>;

export const tokenSchema = z
  .object({
    id: tokenId,
    kind: z.enum(TOKEN_KINDS),
    workspace: workspaceName.nullable(),
    description: z.string(),
    createdAt: time,
    expiresAt: time.nullable(),
    lastUsedAt: time.nullable(),
    revokedAt: time.nullable(),
    /** Of kind `agent`: the only agent that it admits, how many it may admit, and how many it has admitted. */
    agent: agentName.nullable().default(null),
    usesMax: count.nullable().default(null),
    uses: count.default(0),
  })
  .meta({ id: "Token" });
export type TokenDto = z.output<typeof tokenSchema>;

/** GET /api/v1/identity: what the credential of the request is. */
export const identitySchema = z
  .object({
    /** Null on the coordinator's own socket, which needs none. */
    token: tokenSchema.nullable(),
    /** The coordinator's clock and version. */
    now: time,
    version: z.string(),
  })
  .meta({ id: "Identity" });
export type Identity = z.output<typeof identitySchema>;

/** GET /api/v1/tokens. Revoking is DELETE /api/v1/tokens/ID → 204. */
export const tokenListSchema = z.object({ tokens: z.array(tokenSchema), next: cursor });
