/**
 * The migrations, in order, append-only: one that has been released is never edited. Each runs in a transaction of its
 * own and is recorded in `migrations`.
 *
 * Rule for all that come after the first release: the version before still runs on the migrated database, because an
 * activation that is undone puts it back there. So a migration only adds. What it adds may be left out by who does not
 * know it: columns that may be null or have a default, tables, indexes. Nothing is dropped, renamed, retyped or made
 * narrower (a check, a unique index, a trigger on a table that was there) before the version that stopped to use it has
 * been released: expand now, contract one version later. A test holds every migration to this
 * (test/support/older-version.ts). What it cannot see: a new value of a column that is read as one of a list is written
 * only one version after the one that can read it.
 */
import { sql } from "kysely";
import { DEPLOYMENT_STATES, FAULTS, MODES, OUTCOMES } from "../../deployment.ts";
import { TOKEN_KINDS } from "../../token.ts";
import { lockForMigration, strictTable } from "./dialect.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type Migration = { readonly id: string; readonly statements: readonly string[] };

const oneOf = (column: string, values: readonly string[]) => `check (${column} in (${values.map((v) => `'${v}'`)}))`;

/** At most one of these per agent, so that one profile never sees two deployments at once. */
const RUNNING = "('offered','fetching','activating','rebooting','confirming','rolling-back')";

export const migrations: readonly Migration[] = [
  {
    id: "0001-first-light",
    statements: [
      strictTable("settings", ["name text not null primary key", "value text not null"]),
      strictTable("workspaces", [
        "id text not null primary key",
        "name text not null",
        "created_ms integer not null",
        "settings text not null default '{}'",
        "deleted_ms integer",
      ]),
      // What is being removed has given its name away.
      "create unique index workspaces_by_name on workspaces (name) where deleted_ms is null",
      strictTable("caches", [
        "id text not null primary key",
        "workspace_id text not null references workspaces (id)",
        "name text not null",
        "is_public integer not null check (is_public in (0, 1))",
        "secret_key text not null",
        "created_ms integer not null",
        "is_default integer not null default 0 check (is_default in (0, 1))",
        "deleted_ms integer",
      ]),
      "create unique index caches_by_name on caches (name) where deleted_ms is null",
      "create unique index caches_one_default on caches (workspace_id) where is_default = 1",
      strictTable("foreign_caches", [
        "workspace_id text not null references workspaces (id)",
        "name text not null",
        "url text not null",
        "public_keys text not null",
        "created_ms integer not null",
        "changed_ms integer not null",
        "primary key (workspace_id, name)",
      ]),
      strictTable("key_vouchers", [
        "workspace_id text not null references workspaces (id)",
        "cache_name text not null",
        "voucher_key text not null",
        "public_keys text not null",
        "at_ms integer not null",
        "signature text not null",
        "primary key (workspace_id, cache_name, voucher_key)",
      ]),
      strictTable("cache_keys", [
        "cache_id text not null references caches (id)",
        "sequence integer not null",
        "old_key text not null",
        "new_key text not null",
        "at_ms integer not null",
        "signature text not null",
        "old_secret text",
        "primary key (cache_id, sequence)",
      ]),
      strictTable("tokens", [
        "id text not null primary key",
        "workspace_id text references workspaces (id)",
        `kind text not null ${oneOf("kind", TOKEN_KINDS)}`,
        "secret_sha256 blob not null",
        "description text not null",
        "created_ms integer not null",
        "expires_ms integer",
        "last_used_ms integer",
        "revoked_ms integer",
        "agent_name text",
        "uses_max integer check (uses_max > 0)",
        "uses integer not null default 0",
        "check (workspace_id is not null or kind = 'admin')",
        "check (kind = 'agent' or (agent_name is null and uses_max is null))",
      ]),
      strictTable("agents", [
        "id text not null primary key",
        "workspace_id text not null references workspaces (id)",
        "name text not null",
        "public_key blob not null unique",
        "admitted_by text not null references tokens (id)",
        "registered_ms integer not null",
        "announced_online integer not null default 0 check (announced_online in (0, 1))",
        "last_seen_ms integer not null",
        "agent_version text not null",
        "nix_version text",
        "system text not null",
        "host_name text not null",
        "profile text not null",
        "state text not null",
        "labels text not null default '{}'",
        "operator_labels text not null default '{}'",
        "former_names text not null default '[]'",
        "removed_ms integer",
      ]),
      // One that was removed stays for its history, and leaves its name to others.
      "create unique index agents_by_name on agents (workspace_id, name) where removed_ms is null",
      "create index agents_by_token on agents (admitted_by)",
      strictTable("retired_keys", [
        "public_key blob not null primary key",
        "agent_id text not null references agents (id)",
        `reason text not null ${oneOf("reason", ["rotated", "replaced", "rejected"])}`,
        "retired_ms integer not null",
      ]),
      strictTable("enrolment_requests", [
        "workspace_id text not null references workspaces (id)",
        "name text not null",
        "public_key blob not null",
        "token_id text not null references tokens (id)",
        "address text",
        "host_name text not null",
        "system text not null",
        "requested_ms integer not null",
        "primary key (workspace_id, name)",
      ]),
      strictTable("nars", [
        "cache_id text not null references caches (id)",
        "file_hash text not null",
        "nar_hash text not null",
        "nar_size_bytes integer not null",
        "file_size_bytes integer not null",
        "compression text not null",
        "created_ms integer not null",
        "primary key (cache_id, file_hash)",
      ]),
      strictTable("paths", [
        "cache_id text not null references caches (id)",
        "hash_part text not null",
        "store_path text not null",
        "nar_hash text not null",
        "nar_size_bytes integer not null",
        "file_hash text not null",
        "reference_names text not null",
        "deriver text",
        "signatures text not null",
        "content_address text",
        "created_ms integer not null",
        "primary key (cache_id, hash_part)",
        "foreign key (cache_id, file_hash) references nars (cache_id, file_hash)",
      ]),
      "create index paths_by_nar on paths (cache_id, file_hash)",
      strictTable("rollouts", [
        "id text not null primary key",
        "workspace_id text not null references workspaces (id)",
        "created_ms integer not null",
        "token_id text references tokens (id)",
        "description text",
        "origin text not null",
      ]),
      "create index rollouts_by_workspace on rollouts (workspace_id, created_ms)",
      "create index rollouts_by_token on rollouts (token_id) where token_id is not null",
      strictTable("idempotency_keys", [
        "owner text not null",
        "key text not null",
        "fingerprint text not null",
        "rollout_id text not null references rollouts (id) on delete cascade",
        "created_ms integer not null",
        "primary key (owner, key)",
      ]),
      "create index idempotency_keys_by_age on idempotency_keys (created_ms)",
      strictTable("deployments", [
        "number integer not null primary key autoincrement",
        "id text not null unique",
        "rollout_id text not null references rollouts (id)",
        "workspace_id text not null references workspaces (id)",
        "agent_id text not null references agents (id)",
        "store_path text not null",
        `mode text not null ${oneOf("mode", MODES)}`,
        "rollback_script text",
        "policy text not null",
        "health_checks text not null",
        `state text not null ${oneOf("state", DEPLOYMENT_STATES)}`,
        `stop_requested text ${oneOf("stop_requested", ["cancelled", "superseded"])}`,
        "reason text",
        "previous_path text",
        "created_ms integer not null",
        "started_ms integer",
        "finished_ms integer",
        "closure_size_bytes integer not null",
        "fetched_bytes integer",
        "exit_code integer",
        "phase_ms text not null",
        "confirm_window_ms integer",
        "unit_changes text",
        "log_bytes integer not null default 0",
        "log_truncated integer not null default 0 check (log_truncated in (0, 1))",
        "log_expired integer not null default 0 check (log_expired in (0, 1))",
        "journal_through integer not null",
        "started_on_device integer not null default 0 check (started_on_device in (0, 1))",
        `fault text ${oneOf("fault", FAULTS)}`,
        "retry_of text references deployments (id)",
        "attempt integer not null default 1",
        "not_before_ms integer",
        "expires_ms integer",
        "offered_ms integer",
        `late_outcome text ${oneOf("late_outcome", OUTCOMES)}`,
        "late_reason text",
        "late_ms integer",
        "stalled_ms integer",
        "lifts_quarantine integer not null default 0 check (lifts_quarantine in (0, 1))",
      ]),
      // Allowed: one queued beside one running. Blocked: two queued, two running. What is started on the device is in
      // turn with the others there, not here.
      "create unique index deployments_one_queued on deployments (agent_id) where state = 'queued'",
      `create unique index deployments_one_running on deployments (agent_id) where state in ${RUNNING} and started_on_device = 0`,
      `create index deployments_running on deployments (number) where state in ${RUNNING}`,
      "create index deployments_by_expiry on deployments (expires_ms) where state = 'queued'",
      "create index deployments_offered_by_expiry on deployments (expires_ms) where state = 'offered'",
      "create index deployments_by_rollout on deployments (rollout_id)",
      "create index deployments_by_agent on deployments (agent_id, number)",
      // Of the thousands that an agent has had, the few that are not over.
      "create index deployments_unfinished_by_agent on deployments (agent_id) where finished_ms is null",
      // Of those that have ended: one that runs would be put in anew with each line that it prints.
      "create index deployments_with_log on deployments (workspace_id, finished_ms) where log_bytes > 0 and finished_ms is not null",
      "create index deployments_by_retry on deployments (retry_of) where retry_of is not null",
      "create index deployments_by_workspace on deployments (workspace_id, number)",
      // Small whatever the history: what /metrics and /status count.
      "create index deployments_unfinished on deployments (workspace_id) where finished_ms is null",
      strictTable("events", [
        "id integer not null primary key autoincrement",
        "at_ms integer not null",
        "workspace_id text not null",
        "kind text not null",
        "rollout_id text",
        "deployment_id text",
        "agent_id text",
        "data text not null",
      ]),
      "create index events_by_rollout on events (rollout_id, id) where rollout_id is not null",
      "create index events_by_workspace on events (workspace_id, id)",
      strictTable("webhooks", [
        "workspace_id text not null primary key references workspaces (id)",
        "url text not null",
        "secret text not null",
        "old_secret text",
        "old_secret_until_ms integer",
        "events text not null",
        "created_ms integer not null",
        "after_event_id integer not null",
        "failures integer not null",
        "failing_since_ms integer",
        "next_attempt_ms integer not null",
      ]),
      strictTable("webhook_deliveries", [
        "number integer not null primary key autoincrement",
        "id text not null unique",
        "workspace_id text not null references workspaces (id)",
        `kind text not null ${oneOf("kind", ["events", "test"])}`,
        `state text not null ${oneOf("state", ["pending", "delivered", "given-up"])}`,
        "event_ids text not null",
        "newest_ms integer not null",
        "created_ms integer not null",
        "finished_ms integer",
        "attempts integer not null",
        "attempted_ms integer",
        "status integer",
        "duration_ms integer",
        "error text",
      ]),
      "create index webhook_deliveries_by_workspace on webhook_deliveries (workspace_id, number)",
      // One after the other, so that their order is that of the events.
      "create unique index webhook_deliveries_one_pending on webhook_deliveries (workspace_id) where state = 'pending'",
      strictTable("agent_peaks", [
        "workspace_id text not null",
        "month text not null",
        "peak integer not null",
        "at_ms integer not null",
        "primary key (workspace_id, month)",
      ]),
      strictTable("audit_log", [
        "id integer not null primary key autoincrement",
        "at_ms integer not null",
        "workspace_id text",
        "actor_kind text not null",
        "actor_id text",
        "actor_name text not null",
        "address text",
        "act text not null",
        "target text not null",
        "effect text not null",
        "request_id text",
      ]),
      "create index audit_log_by_workspace on audit_log (workspace_id, id)",
      "create index audit_log_by_time on audit_log (at_ms)",
      strictTable("log_chunks", [
        "id integer not null primary key autoincrement",
        "deployment_id text not null references deployments (id)",
        "rollout_id text not null references rollouts (id)",
        "first_n integer not null",
        "last_n integer not null",
        "text_bytes integer not null",
        "body blob not null",
      ]),
      "create index log_chunks_by_rollout on log_chunks (rollout_id, id)",
      "create index log_chunks_by_deployment on log_chunks (deployment_id, first_n)",
    ],
  },
];

/**
 * Brings a database to the newest schema. A database that knows migrations we do not know was written by a newer
 * version; the tables that this version uses are still there (see the rule above), so it is left as it is.
 * @returns the ids that were applied, oldest first
 */
export async function migrate(
  database: CoordinatorDatabase,
  known: readonly Migration[] = migrations,
): Promise<readonly string[]> {
  const applied: string[] = [];
  for (const migration of known) {
    await database.transaction().execute(async (transaction) => {
      await lockForMigration(transaction);
      const done = await sql<{ id: string }>`select id from migrations where id = ${migration.id}`.execute(transaction);
      if (done.rows.length > 0) return;
      for (const statement of migration.statements) await sql.raw(statement).execute(transaction);
      await sql`insert into migrations (id) values (${migration.id})`.execute(transaction);
      applied.push(migration.id);
    });
  }
  return applied;
}
