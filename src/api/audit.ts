/** The audit log in the REST API. */
import { z } from "zod";
import { cursor, time, workspaceName } from "./fields.ts";

export const AUDIT_ACTORS = ["token", "agent", "control"] as const;

export const auditEntrySchema = z
  .object({
    at: time,
    /** Null: none, or one that is gone. */
    workspace: workspaceName.nullable(),
    actor: z.object({
      /** `control`: whoever may open the control socket, or the database itself. */
      kind: z.enum(AUDIT_ACTORS),
      id: z.string().nullable(),
      /** A token's kind and description, an agent's name, as they were. */
      name: z.string(),
    }),
    /** Where the act came from; null for one on the coordinator's own host. */
    address: z.string().nullable(),
    /** Method and path pattern of the route, such as `POST /rollouts`; or `enroll`. */
    act: z.string(),
    target: z.string(),
    effect: z.string(),
    requestId: z.string().nullable(),
  })
  .meta({ id: "AuditEntry" });
export type AuditEntryDto = z.output<typeof auditEntrySchema>;

/** GET /api/v1/audit */
export const auditListSchema = z.object({ entries: z.array(auditEntrySchema), next: cursor });
