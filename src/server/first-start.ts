/** What must be there before a coordinator can serve: settings, workspace and cache `default`, an admin token. */
import { drawId, parseCacheName, parseWorkspaceName } from "../names.ts";
import { formatSecretKey, secretKeyFromSeed } from "../nix/signing-key.ts";
import type { Clock, Random } from "../runtime.ts";
import type { CoordinatorDatabase } from "./database/schema.ts";
import { hasAdminToken, insertToken } from "./database/tokens.ts";
import { findWorkspace, insertCache, insertWorkspace, loadSetting, saveSettingOnce } from "./database/workspaces.ts";
import { makeToken } from "./routes/tokens.ts";

export type FirstStartDeps = {
  readonly database: CoordinatorDatabase;
  readonly clock: Clock;
  readonly random: Random;
  /** Puts the admin token where its owner finds it; called before the token counts. */
  readonly writeAdminToken: (token: string) => Promise<void>;
};

const KEY_BYTES = 32;
const KEY_NAME_SUFFIX_LENGTH = 6;
const CREDENTIAL_KEY = "read-credential-key";
const DEFAULT = "default";

/**
 * Idempotent: killed at any point and started again, it completes what is missing.
 * @returns the key that read credentials are made with
 */
export async function ensureFirstStart(deps: FirstStartDeps): Promise<{ readonly credentialKey: Uint8Array }> {
  const { database, random } = deps;
  const drawn = Buffer.from(random.bytes(KEY_BYTES)).toString("base64");
  await saveSettingOnce(database, { name: CREDENTIAL_KEY, value: drawn });
  const credentialKey = Buffer.from((await loadSetting(database, CREDENTIAL_KEY)) ?? "", "base64");
  await database.transaction().execute((transaction) => ensureDefaultWorkspace(transaction, deps));
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

async function ensureDefaultWorkspace(transaction: CoordinatorDatabase, deps: FirstStartDeps): Promise<void> {
  const name = parseWorkspaceName(DEFAULT);
  if ((await findWorkspace(transaction, name)) !== null) return;
  const workspaceId = drawId(deps.random);
  const nowMs = deps.clock.nowMs();
  await insertWorkspace(transaction, { id: workspaceId, name, created_ms: nowMs });
  // The suffix keeps the key names of two coordinators apart: Nix looks keys up by name.
  const keyName = `${DEFAULT}-${drawId(deps.random).slice(0, KEY_NAME_SUFFIX_LENGTH)}-1`;
  await insertCache(transaction, {
    id: drawId(deps.random),
    workspace_id: workspaceId,
    name: parseCacheName(DEFAULT),
    is_public: 0,
    secret_key: formatSecretKey(secretKeyFromSeed(keyName, deps.random.bytes(KEY_BYTES))),
    created_ms: nowMs,
  });
}
