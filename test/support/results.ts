/** What tests read of the `--json` results, apart from the program's own schemas: these are the contract's other side. */
import { z } from "zod";

/** `activate --json` */
export const rolloutResultSchema = z.object({
  id: z.string(),
  url: z.string(),
  deployments: z.array(
    z.object({
      id: z.string(),
      agent: z.string(),
      state: z.string(),
      reason: z.string().nullable(),
      storePath: z.string(),
      previousPath: z.string().nullable(),
      fault: z.string().nullable(),
      unitChanges: z
        .object({ stop: z.array(z.string()), start: z.array(z.string()), restart: z.array(z.string()) })
        .nullable(),
    }),
  ),
});

/** `cache show NAME --json` */
export const cacheResultSchema = z.object({
  name: z.string(),
  url: z.string(),
  publicKeys: z.array(z.string()),
  public: z.boolean(),
});

/** `token create --json` */
export const tokenResultSchema = z.object({
  id: z.string(),
  token: z.string(),
  kind: z.string(),
  workspace: z.string().nullable(),
  expiresAt: z.string().nullable(),
});
