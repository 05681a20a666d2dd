/** Errors of the REST API: problem+json (RFC 9457) with an `errors` list where several faults are found at once. */
import { z } from "zod";

/** Every error answer. */
export const problemSchema = z
  .object({
    type: z.string().optional(),
    /** The sentence for the person who asked. */
    title: z.string(),
    status: z.number().int(),
    detail: z.string().optional(),
    hint: z.string().optional(),
    /** Several faults found at once, one sentence each. */
    errors: z.array(z.string()).optional(),
    /** That of the answer's `x-request-id`, by which the coordinator's logs speak of this request. */
    requestId: z.string().optional(),
  })
  .meta({ id: "Problem" });
export type Problem = z.output<typeof problemSchema>;
