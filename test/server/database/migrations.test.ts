/**
 * The version before runs on a database that the next one migrated: every migration is held to that rule, and the check
 * itself is shown what it must find.
 */
import { describe, expect, test } from "bun:test";
import { type Migration, migrations } from "../../../src/server/database/migrations.ts";
import { findIncompatibilities, type SampleRow } from "../../support/older-version.ts";

/** A row of each table, as the program writes it. A new table or a new column that must be given gets its value here. */
const ROWS: Readonly<Record<string, SampleRow>> = {
  settings: { name: "credential-key", value: "x" },
  workspaces: { id: "w", name: "default", created_ms: 1 },
  caches: { id: "c", workspace_id: "w", name: "default", is_public: 0, secret_key: "k", created_ms: 1 },
  cache_keys: {
    ...{ cache_id: "c", sequence: 1, old_key: "k-1:AA==", new_key: "k-2:AA==", at_ms: 1, signature: "AA==" },
    old_secret: null,
  },
  foreign_caches: {
    workspace_id: "w",
    name: "nixos",
    url: "https://cache.example",
    public_keys: "k",
    created_ms: 1,
    changed_ms: 1,
  },
  key_vouchers: {
    workspace_id: "w",
    cache_name: "nixos",
    voucher_key: "v",
    public_keys: "k",
    at_ms: 1,
    signature: "s",
  },
  tokens: {
    ...{ id: "t", workspace_id: "w", kind: "admin", secret_sha256: new Uint8Array(32), description: "" },
    ...{ created_ms: 1, expires_ms: null, last_used_ms: null, revoked_ms: null },
    ...{ agent_name: null, uses_max: null, uses: 0 },
  },
  agents: {
    ...{ id: "a", workspace_id: "w", name: "nuc", public_key: new Uint8Array(32), admitted_by: "t", registered_ms: 1 },
    ...{ last_seen_ms: 1, agent_version: "1", nix_version: null, system: "x86_64-linux", host_name: "nuc" },
    ...{ profile: "/nix/var/nix/profiles/system", state: "{}", removed_ms: null },
  },
  retired_keys: { public_key: new Uint8Array(32), agent_id: "a", reason: "rotated", retired_ms: 1 },
  enrolment_requests: {
    ...{ workspace_id: "w", name: "nuc", public_key: new Uint8Array(32), token_id: "t", address: null },
    ...{ host_name: "nuc", system: "x86_64-linux", requested_ms: 1 },
  },
  nars: {
    ...{ cache_id: "c", file_hash: "f", nar_hash: "n", nar_size_bytes: 1, file_size_bytes: 1 },
    ...{ compression: "zstd", created_ms: 1 },
  },
  paths: {
    ...{ cache_id: "c", hash_part: "h", store_path: "/nix/store/h-x", nar_hash: "n", nar_size_bytes: 1 },
    ...{ file_hash: "f", reference_names: "", deriver: null, signatures: "", content_address: null, created_ms: 1 },
  },
  rollouts: { id: "r", workspace_id: "w", created_ms: 1, token_id: "t", description: null, origin: "{}" },
  idempotency_keys: { owner: "t", key: "k", fingerprint: "f", rollout_id: "r", created_ms: 1 },
  deployments: {
    ...{ id: "d", rollout_id: "r", workspace_id: "w", agent_id: "a", store_path: "/nix/store/h-x", mode: "switch" },
    ...{
      rollback_script: null,
      policy: "{}",
      health_checks: "[]",
      state: "queued",
      stop_requested: null,
      reason: null,
    },
    ...{ previous_path: null, created_ms: 1, started_ms: null, finished_ms: null, closure_size_bytes: 1 },
    ...{ fetched_bytes: null, exit_code: null, phase_ms: "{}", unit_changes: null, journal_through: 0 },
  },
  events: {
    ...{ at_ms: 1, workspace_id: "w", kind: "deployment", rollout_id: "r", deployment_id: "d", agent_id: "a" },
    data: "{}",
  },
  webhooks: {
    ...{ workspace_id: "w", url: "https://hooks.example", secret: "whsec_AA==", events: "", created_ms: 1 },
    ...{ after_event_id: 0, failures: 0, failing_since_ms: null, next_attempt_ms: 0 },
  },
  webhook_deliveries: {
    ...{ id: "m", workspace_id: "w", kind: "events", state: "pending", event_ids: "[1]", newest_ms: 1, created_ms: 1 },
    ...{ finished_ms: null, attempts: 0, attempted_ms: null, status: null, duration_ms: null, error: null },
  },
  agent_peaks: { workspace_id: "w", month: "2026-01", peak: 1, at_ms: 1 },
  audit_log: {
    ...{ at_ms: 1, workspace_id: "w", actor_kind: "token", actor_id: "t", actor_name: "admin", address: null },
    ...{ act: "POST /tokens", target: "t", effect: "made", request_id: null },
  },
  log_chunks: { deployment_id: "d", rollout_id: "r", first_n: 1, last_n: 1, text_bytes: 1, body: new Uint8Array(1) },
};

test("every table of every version has a sample row that it takes", async () => {
  expect(await findIncompatibilities({ older: migrations, newer: migrations, rows: ROWS })).toEqual([]);
});

for (const [index, { id }] of migrations.entries()) {
  test(`a version that knows migrations up to ${id} works on the newest database`, async () => {
    const older = migrations.slice(0, index + 1);
    expect(await findIncompatibilities({ older, newer: migrations, rows: ROWS })).toEqual([]);
  });
}

describe("a migration after these", () => {
  /** Rebuilds a table, which is how SQLite changes what `alter table` cannot. */
  const rebuild = (columns: string) => [
    "drop table settings",
    `create table settings (${columns}) strict`,
    "create table more (id text not null primary key) strict",
  ];
  const withNext = (...statements: string[]): readonly Migration[] => [...migrations, { id: "9999-next", statements }];

  test.each([
    ["a column that may be null", ["alter table agents add column later text"]],
    ["a column with a default", ["alter table agents add column later integer not null default 0"]],
    ["a table", ["create table later (id text not null primary key, value text not null) strict"]],
    ["an index", ["create index agents_by_host on agents (host_name)"]],
    ["a looser column", rebuild("name text not null primary key, value text")],
  ])("may add %s", async (_what, statements) => {
    expect(await findIncompatibilities({ older: migrations, newer: withNext(...statements), rows: ROWS })).toEqual([]);
  });

  test.each([
    [
      "a column that must be given",
      rebuild("name text not null primary key, value text not null, later text not null"),
      "settings.later: new, not null, and without a default",
    ],
    ["a column's loss", ["alter table agents drop column host_name"], "agents.host_name: the column is gone"],
    ["another name", ["alter table agents rename column host_name to host"], "agents.host_name: the column is gone"],
    [
      "another type",
      rebuild("name text not null primary key, value blob not null"),
      "settings.value: TEXT became BLOB",
    ],
    ["a table's loss", ["drop table log_chunks"], "log_chunks: the table is gone"],
    [
      "a narrower check",
      rebuild("name text not null primary key, value text not null check (length(value) > 9)"),
      "settings: an insert of the older version is refused: CHECK",
    ],
    [
      "a unique index",
      ["create unique index one_host on agents (host_name)"],
      "agents: a new unique index: (host_name)",
    ],
    [
      "a trigger",
      ["create trigger t after insert on agents begin delete from settings; end"],
      "trigger t: it does what",
    ],
  ])("may not bring %s", async (_what, statements, fault) => {
    const faults = await findIncompatibilities({ older: migrations, newer: withNext(...statements), rows: ROWS });
    expect(faults.join("\n")).toContain(fault);
  });

  test("may not take a value out of a list", async () => {
    const [first, ...rest] = migrations;
    if (first === undefined) throw new Error("there are no migrations");
    const cut = (text: string) => text.replace("'cancelled','superseded'", "'cancelled'");
    const narrower = [{ ...first, statements: first.statements.map(cut) }, ...rest];
    const faults = await findIncompatibilities({ older: migrations, newer: narrower, rows: ROWS });
    expect(faults.join("\n")).toContain("deployments: an insert of the older version is refused: CHECK");
  });
});
