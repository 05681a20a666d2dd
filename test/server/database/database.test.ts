/** The database: migrations against the types of schema.ts, constraints, locks and what is kept safe. */
import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { type Selectable, sql } from "kysely";
import { openDatabase } from "../../../src/server/database/dialect.ts";
import { takeExclusiveLock } from "../../../src/server/database/lock.ts";
import { migrate, migrations } from "../../../src/server/database/migrations.ts";
import type { Schema } from "../../../src/server/database/schema.ts";
import { createTemporaryDirectory } from "../../support/temporary-directory.ts";

type Base<Value> = Value extends string
  ? "text"
  : Value extends number
    ? "integer"
    : Value extends Uint8Array
      ? "blob"
      : never;
type Column<Value> = null extends Value ? `${Base<NonNullable<Value>>}?` : Base<NonNullable<Value>>;
type ColumnsOf<Row> = { readonly [Name in keyof Row]: Column<Row[Name]> };
type Columns = { readonly [Table in keyof Schema]: ColumnsOf<Selectable<Schema[Table]>> };

/** The compiler holds this table to schema.ts, the test below holds the migrations to this table. `?`: may be null. */
const COLUMNS: Columns = {
  settings: { name: "text", value: "text" },
  workspaces: { id: "text", name: "text", created_ms: "integer", settings: "text", deleted_ms: "integer?" },
  foreign_caches: {
    workspace_id: "text",
    name: "text",
    url: "text",
    public_keys: "text",
    created_ms: "integer",
    changed_ms: "integer",
  },
  key_vouchers: {
    workspace_id: "text",
    cache_name: "text",
    voucher_key: "text",
    public_keys: "text",
    at_ms: "integer",
    signature: "text",
  },
  webhooks: {
    workspace_id: "text",
    url: "text",
    secret: "text",
    old_secret: "text?",
    old_secret_until_ms: "integer?",
    events: "text",
    created_ms: "integer",
    after_event_id: "integer",
    failures: "integer",
    failing_since_ms: "integer?",
    next_attempt_ms: "integer",
  },
  webhook_deliveries: {
    number: "integer",
    id: "text",
    workspace_id: "text",
    kind: "text",
    state: "text",
    event_ids: "text",
    newest_ms: "integer",
    created_ms: "integer",
    finished_ms: "integer?",
    attempts: "integer",
    attempted_ms: "integer?",
    status: "integer?",
    duration_ms: "integer?",
    error: "text?",
  },
  caches: {
    id: "text",
    workspace_id: "text",
    name: "text",
    is_public: "integer",
    secret_key: "text",
    created_ms: "integer",
    is_default: "integer",
    deleted_ms: "integer?",
  },
  cache_keys: {
    cache_id: "text",
    sequence: "integer",
    old_key: "text",
    new_key: "text",
    at_ms: "integer",
    signature: "text",
    old_secret: "text?",
  },
  tokens: {
    id: "text",
    workspace_id: "text?",
    kind: "text",
    secret_sha256: "blob",
    description: "text",
    created_ms: "integer",
    expires_ms: "integer?",
    last_used_ms: "integer?",
    revoked_ms: "integer?",
    agent_name: "text?",
    uses_max: "integer?",
    uses: "integer",
  },
  agents: {
    id: "text",
    workspace_id: "text",
    name: "text",
    public_key: "blob",
    admitted_by: "text",
    registered_ms: "integer",
    announced_online: "integer",
    last_seen_ms: "integer",
    agent_version: "text",
    nix_version: "text?",
    system: "text",
    host_name: "text",
    profile: "text",
    state: "text",
    labels: "text",
    operator_labels: "text",
    former_names: "text",
    removed_ms: "integer?",
  },
  retired_keys: { public_key: "blob", agent_id: "text", reason: "text", retired_ms: "integer" },
  enrolment_requests: {
    workspace_id: "text",
    name: "text",
    public_key: "blob",
    token_id: "text",
    address: "text?",
    host_name: "text",
    system: "text",
    requested_ms: "integer",
  },
  nars: {
    cache_id: "text",
    file_hash: "text",
    nar_hash: "text",
    nar_size_bytes: "integer",
    file_size_bytes: "integer",
    compression: "text",
    created_ms: "integer",
  },
  paths: {
    cache_id: "text",
    hash_part: "text",
    store_path: "text",
    nar_hash: "text",
    nar_size_bytes: "integer",
    file_hash: "text",
    reference_names: "text",
    deriver: "text?",
    signatures: "text",
    content_address: "text?",
    created_ms: "integer",
  },
  rollouts: {
    id: "text",
    workspace_id: "text",
    created_ms: "integer",
    token_id: "text?",
    description: "text?",
    origin: "text",
  },
  deployments: {
    number: "integer",
    id: "text",
    rollout_id: "text",
    workspace_id: "text",
    agent_id: "text",
    store_path: "text",
    mode: "text",
    rollback_script: "text?",
    policy: "text",
    health_checks: "text",
    state: "text",
    stop_requested: "text?",
    reason: "text?",
    previous_path: "text?",
    created_ms: "integer",
    started_ms: "integer?",
    finished_ms: "integer?",
    closure_size_bytes: "integer",
    fetched_bytes: "integer?",
    exit_code: "integer?",
    phase_ms: "text",
    confirm_window_ms: "integer?",
    unit_changes: "text?",
    log_bytes: "integer",
    log_truncated: "integer",
    log_expired: "integer",
    journal_through: "integer",
    started_on_device: "integer",
    fault: "text?",
    retry_of: "text?",
    attempt: "integer",
    not_before_ms: "integer?",
    expires_ms: "integer?",
    stalled_ms: "integer?",
    lifts_quarantine: "integer",
    offered_ms: "integer?",
    late_outcome: "text?",
    late_reason: "text?",
    late_ms: "integer?",
  },
  idempotency_keys: { owner: "text", key: "text", fingerprint: "text", rollout_id: "text", created_ms: "integer" },
  events: {
    id: "integer",
    at_ms: "integer",
    workspace_id: "text",
    kind: "text",
    rollout_id: "text?",
    deployment_id: "text?",
    agent_id: "text?",
    data: "text",
  },
  agent_peaks: { workspace_id: "text", month: "text", peak: "integer", at_ms: "integer" },
  audit_log: {
    ...{ id: "integer", at_ms: "integer", workspace_id: "text?", actor_kind: "text", actor_id: "text?" },
    ...{ actor_name: "text", address: "text?", act: "text", target: "text", effect: "text", request_id: "text?" },
  },
  log_chunks: {
    id: "integer",
    deployment_id: "text",
    rollout_id: "text",
    first_n: "integer",
    last_n: "integer",
    text_bytes: "integer",
    body: "blob",
  },
};

/** Tables of the database that are not for the program's queries. */
const BOOKKEEPING = ["migrations", "sqlite_sequence"];

describe("migrations", () => {
  test("from nothing give the tables that schema.ts names, column by column", async () => {
    await using database = openDatabase(":memory:");
    await migrate(database);
    const tables = await sql<{ name: string; strict: number }>`pragma table_list`.execute(database);
    const made = tables.rows.filter(
      ({ name }) => !BOOKKEEPING.includes(name) && !name.startsWith("sqlite_schema") && !name.startsWith("sqlite_temp"),
    );
    expect(made.map(({ name }) => name).toSorted()).toEqual(Object.keys(COLUMNS).toSorted());
    expect(made.filter(({ strict }) => strict !== 1)).toEqual([]);
    for (const { name } of made) {
      const info = await sql<{
        name: string;
        type: string;
        notnull: number;
      }>`select * from pragma_table_info(${name})`.execute(database);
      const columns = info.rows.map((column) => [
        column.name,
        `${column.type.toLowerCase()}${column.notnull === 1 ? "" : "?"}`,
      ]);
      expect([name, Object.fromEntries(columns)]).toEqual([name, { ...COLUMNS[name as keyof Columns] }]);
    }
  });

  test("run once", async () => {
    await using directory = await createTemporaryDirectory("database");
    for (const applied of [migrations.map(({ id }) => id), []]) {
      await using database = openDatabase(directory.join("coordinator.db"));
      expect(await migrate(database)).toEqual(applied);
    }
  });

  test("have ids in order, each its own", () => {
    const ids = migrations.map(({ id }) => id);
    expect(ids).toEqual(ids.toSorted());
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^\d{4}-[a-z0-9-]+$/);
  });

  test("leave a database of a newer version as it is", async () => {
    await using database = openDatabase(":memory:");
    await migrate(database);
    await sql`insert into migrations (id) values ('9999-later')`.execute(database);
    await sql`alter table agents add column later text`.execute(database);
    expect(await migrate(database)).toEqual([]);
  });

  test("that fail half-way leave nothing", async () => {
    await using database = openDatabase(":memory:");
    await sql`create table log_chunks (x text)`.execute(database);
    await expect(migrate(database)).rejects.toThrow("already exists");
    const tables = await sql<{ name: string }>`select name from sqlite_schema where type = 'table'`.execute(database);
    expect(tables.rows.map(({ name }) => name)).toEqual(["log_chunks"]);
  });
});

describe("an open database", () => {
  const expected = { journal_mode: "wal", synchronous: 2, foreign_keys: 1, busy_timeout: 10_000, trusted_schema: 0 };
  for (const [pragma, value] of Object.entries(expected)) {
    test(`has ${pragma} = ${value}`, async () => {
      await using directory = await createTemporaryDirectory("database");
      await using database = openDatabase(directory.join("coordinator.db"));
      const { rows } = await sql<Record<string, unknown>>`${sql.raw(`pragma ${pragma}`)}`.execute(database);
      expect(Object.values(rows[0] ?? {})).toEqual([value]);
    });
  }

  test("is its owner's only, and so are its side files", async () => {
    await using directory = await createTemporaryDirectory("database");
    await using database = openDatabase(directory.join("coordinator.db"));
    await migrate(database);
    for (const suffix of ["", "-wal", "-shm"]) {
      expect(statSync(directory.join(`coordinator.db${suffix}`)).mode & 0o077).toBe(0);
    }
  });

  test("holds at most one queued and one running deployment of an agent", async () => {
    await using database = openDatabase(":memory:");
    await migrate(database);
    await sql`pragma foreign_keys = off`.execute(database);
    const insert = async (id: string, state: string) => {
      await sql`insert into deployments
        (id, rollout_id, workspace_id, agent_id, store_path, mode, policy, health_checks, state, created_ms, closure_size_bytes, phase_ms, journal_through)
        values (${id}, 'r', 'w', 'a', 'p', 'switch', '{}', '[]', ${state}, 0, 0, '{}', 0)`.execute(database);
    };
    for (const state of ["queued", "fetching", "succeeded", "failed"]) await insert(state, state);
    for (const state of ["queued", "offered", "activating", "rolling-back"]) {
      await expect(insert(`second ${state}`, state)).rejects.toThrow("UNIQUE");
    }
    for (const state of ["succeeded", "superseded"]) await insert(`second ${state}`, state);
    await expect(insert("x", "dancing")).rejects.toThrow("CHECK");
  });
});

describe("the lock", () => {
  test("is held by one, and free when it lets go", async () => {
    await using directory = await createTemporaryDirectory("lock");
    const file = directory.join("coordinator.lock");
    const first = takeExclusiveLock(file);
    expect(first).not.toBeNull();
    expect(takeExclusiveLock(file)).toBeNull();
    first?.[Symbol.dispose]();
    using again = takeExclusiveLock(file);
    expect(again).not.toBeNull();
  });

  test("is free when its process was killed", async () => {
    await using directory = await createTemporaryDirectory("lock");
    const file = directory.join("coordinator.lock");
    const code = `import { takeExclusiveLock } from ${JSON.stringify(new URL("../../../src/server/database/lock.ts", import.meta.url).pathname)};
      const lock = takeExclusiveLock(${JSON.stringify(file)}); console.log(lock !== null); setInterval(() => lock, 1e6);`;
    const child = Bun.spawn([process.execPath, "-e", code], { stdout: "pipe" });
    await child.stdout.getReader().read();
    expect(takeExclusiveLock(file)).toBeNull();
    child.kill("SIGKILL");
    await child.exited;
    using lock = takeExclusiveLock(file);
    expect(lock).not.toBeNull();
  });

  test("says what is wrong with a file that cannot be", () => {
    expect(() => takeExclusiveLock("/nonexistent/lock")).toThrow("cannot open the lock file");
  });
});
