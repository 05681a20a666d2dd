/** What must be there before a coordinator can serve: settings, workspace and cache `default`, an admin token. */
import { parseWorkspaceName } from "../names.ts";
import type { Clock, Random } from "../runtime.ts";
import type { CoordinatorDatabase } from "./database/schema.ts";
import { hasAdminToken, insertToken } from "./database/tokens.ts";
import { hasWorkspace, loadSetting, saveSettingOnce } from "./database/workspaces.ts";
import { makeToken } from "./routes/tokens.ts";
import { makeWorkspace } from "./workspaces/workspaces.ts";

export type FirstStartDeps = {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly random: Random;
  /** Puts the admin token where its owner finds it; called before the token counts. */
  readonly writeAdminToken: (token: string) => Promise<void>;
};

const KEY_BYTES = 32;
const CREDENTIAL_KEY = "read-credential-key";
const DEFAULT = parseWorkspaceName("default");

/**
 * Idempotent: killed at any point and started again, it completes what is missing.
 * @returns the key that read credentials are made with
 */
export async function ensureFirstStart(deps: FirstStartDeps): Promise<{ readonly credentialKey: Uint8Array }> {
  const { database, random } = deps;
  const drawn = Buffer.from(random.bytes(KEY_BYTES)).toString("base64");
  await saveSettingOnce(database, { name: CREDENTIAL_KEY, value: drawn });
  const credentialKey = Buffer.from((await loadSetting(database, CREDENTIAL_KEY)) ?? "", "base64");
  await database.transaction().execute(async (transaction) => {
    // One that was renamed or deleted does not come back.
    if (!(await hasWorkspace(transaction))) await makeWorkspace(transaction, { ...deps, name: DEFAULT });
  });
  if (!(await hasAdminToken(database))) {
    const { row, token } = makeToken(deps, {
      kind: "admin",
      workspaceId: null,
      description: "made at the first start",
      expiresInMs: null,
    });
    await deps.writeAdminToken(token);
    await insertToken(database, row);
  }
  return { credentialKey: new Uint8Array(credentialKey) };
}
