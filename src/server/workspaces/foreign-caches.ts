/**
 * Caches of others that a workspace's agents may fetch from. The coordinator passes on where they are and which keys they
 * sign with, and vouches for those (`vouchers.ts`); whether a device trusts them is the device's own business (its pins).
 */
import { FOREIGN_CACHES_MAX } from "../../api/caches.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import type { CacheName } from "../../names.ts";
import { NixParseError } from "../../nix/parse-error.ts";
import { formatPublicKey, parsePublicKey } from "../../nix/signing-key.ts";
import type { Clock } from "../../runtime.ts";
import { type ForeignCacheRow, listForeignCaches, saveForeignCache } from "../database/caches.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";

/** @throws NixdeployError `usage` for an address or a key that is none, `conflict` when there are too many */
export async function putForeignCache(
  deps: { readonly database: CoordinatorDatabase; readonly clock: Clock },
  wanted: {
    readonly workspaceId: string;
    readonly name: CacheName;
    readonly url: string;
    readonly publicKeys: readonly string[];
  },
): Promise<ForeignCacheRow> {
  const nowMs = deps.clock.nowMs();
  const row: ForeignCacheRow = {
    workspace_id: wanted.workspaceId,
    name: wanted.name,
    url: parseSubstituterUrl(wanted.url),
    public_keys: wanted.publicKeys.map(readPublicKey).join("\n"),
    ...{ created_ms: nowMs, changed_ms: nowMs },
  };
  return await deps.database.transaction().execute(async (transaction) => {
    const known = await listForeignCaches(transaction, row.workspace_id);
    const before = known.find(({ name }) => name === row.name);
    if (before === undefined && known.length >= FOREIGN_CACHES_MAX) {
      throw new NixdeployError("conflict", `cannot add the cache ${row.name}: there are ${known.length} already`, {
        hint: "Each one may be asked for each path: remove one that is not needed.",
      });
    }
    // Devices take the newest word about its keys: the same keys are no news, and others must be newer than the last.
    const isSame = before?.public_keys === row.public_keys;
    const changedMs = isSame ? before.changed_ms : Math.max(nowMs, (before?.changed_ms ?? 0) + 1);
    const saved = { ...row, changed_ms: changedMs };
    await saveForeignCache(transaction, saved);
    return saved;
  });
}

/**
 * Without a slash at its end.
 * @throws NixdeployError `usage` for what is no plain address: a password would be told to every device
 */
export function parseSubstituterUrl(text: string): string {
  const url = URL.parse(text);
  const refuse = (why: string) =>
    new NixdeployError("usage", `cannot use the substituter: ${why}`, {
      hint: "It looks like https://cache.nixos.org.",
    });
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw refuse("it is no http or https URL");
  }
  if (url.username !== "" || url.password !== "") throw refuse("it has a user name or a password in it");
  if (url.search !== "" || url.hash !== "") throw refuse("it has a query or a fragment");
  return url.href.replace(/(?<!\/)\/+$/, "");
}

function readPublicKey(text: string): string {
  try {
    return formatPublicKey(parsePublicKey(text));
  } catch (error) {
    const why = error instanceof NixParseError ? error.reason : describeError(error);
    throw new NixdeployError("usage", `cannot use the public key: ${why}`, {
      hint: "It is one line NAME:BASE64, such as `nixdeploy cache show` prints.",
      cause: error,
    });
  }
}
