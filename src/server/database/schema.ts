/**
 * The tables as Kysely sees them. The truth about columns and constraints is `migrations.ts`; a test compares the two.
 * Times are integer milliseconds since the epoch (`*_ms`), booleans are 0 or 1, JSON is text.
 */
import type { Generated, Kysely } from "kysely";
import type { DeploymentState, Fault, Mode, Outcome } from "../../deployment.ts";
import type { AgentId, AgentName, CacheName, DeploymentId, RolloutId, TokenId, WorkspaceName } from "../../names.ts";
import type { FileHash, NarHash } from "../../nix/hash.ts";
import type { StorePath, StorePathHash } from "../../nix/store-path.ts";
import type { TokenKind } from "../../token.ts";

/** The database, or a transaction on it. */
export type CoordinatorDatabase = Kysely<Schema>;

export type Schema = {
  settings: { name: string; value: string };
  workspaces: {
    id: string;
    name: WorkspaceName;
    created_ms: number;
    /** WorkspaceSettings, JSON; what is not in it is the coordinator's default. */
    settings: Generated<string>;
    /** It does not exist any more for anybody; what belonged to it is being removed. */
    deleted_ms: number | null;
  };
  caches: {
    id: string;
    workspace_id: string;
    name: CacheName;
    is_public: number;
    /** `name:base64`, the key that the coordinator signs with. */
    secret_key: string;
    created_ms: number;
    /** The one of its workspace that agents and `push` use first. */
    is_default: Generated<number>;
    /** As for workspaces. */
    deleted_ms: number | null;
  };
  /** Caches of others, from which a workspace's agents may fetch what ours lack. */
  foreign_caches: {
    workspace_id: string;
    name: CacheName;
    /** Without a slash at its end. */
    url: string;
    /** `name:base64`, one a line. */
    public_keys: string;
    created_ms: number;
    /** When it got the keys that it has. */
    changed_ms: number;
  };
  /** What somebody outside has signed for the keys of a cache. */
  key_vouchers: {
    workspace_id: string;
    cache_name: CacheName;
    /** `name:base64` of the key that signed it, public. */
    voucher_key: string;
    /** What it vouches for: `name:base64`, one a line. */
    public_keys: string;
    at_ms: number;
    /** Base64. */
    signature: string;
  };
  /** Each time that a cache got another key: what the old one signed about the new one. */
  cache_keys: {
    cache_id: string;
    /** From 1. */
    sequence: number;
    /** `name:base64`, public. */
    old_key: string;
    new_key: string;
    at_ms: number;
    /** A `KeyStatement`'s. */
    signature: string;
    /** Of the last one that was replaced only: it goes on signing beside the present one. */
    old_secret: string | null;
  };
  tokens: {
    id: TokenId;
    /** Null: good for every workspace (admin tokens only). */
    workspace_id: string | null;
    kind: TokenKind;
    secret_sha256: Uint8Array;
    description: string;
    created_ms: number;
    expires_ms: number | null;
    last_used_ms: number | null;
    revoked_ms: number | null;
    /** The only agent that a token of kind agent admits; null: any. */
    agent_name: AgentName | null;
    /** How many agents it admits; null: any number. */
    uses_max: number | null;
    /** How many it has admitted. */
    uses: number;
  };
  agents: {
    id: AgentId;
    workspace_id: string;
    name: AgentName;
    /** Raw ed25519 public key. */
    public_key: Uint8Array;
    /** The token that admitted it. */
    admitted_by: TokenId;
    registered_ms: number;
    /** What the log of events says of it. */
    announced_online: Generated<number>;
    last_seen_ms: number;
    agent_version: string;
    nix_version: string | null;
    system: string;
    host_name: string;
    profile: string;
    /** MachineState of the agent protocol, JSON. */
    state: string;
    /** Key → value, JSON: as the device sets them, and as the operator does, which count first. */
    labels: string;
    operator_labels: string;
    /** Names that it had before it was renamed, JSON: its device may still log in by them. */
    former_names: string;
    /** Set: it is nobody any more, and kept for the history of its deployments. */
    removed_ms: number | null;
  };
  /** Keys that were an agent's, or asked to be, and must never be taken for a stranger's. */
  retired_keys: {
    public_key: Uint8Array;
    agent_id: AgentId;
    /**
     * `rotated`: the device itself drew a new one. `replaced`: the operator approved another one that asked. `rejected`: it
     * asked, and the operator did not want it.
     */
    reason: "rotated" | "replaced" | "rejected";
    retired_ms: number;
  };
  /** Unknown keys that came with a good token and a name that is taken: the newest for each name. */
  enrolment_requests: {
    workspace_id: string;
    name: AgentName;
    public_key: Uint8Array;
    token_id: TokenId;
    /** Of whoever connected, as far as it is known. */
    address: string | null;
    host_name: string;
    system: string;
    requested_ms: number;
  };
  /** NAR files that were uploaded to a cache. Who knows a hash only has not uploaded the file, so rows are per cache. */
  nars: {
    cache_id: string;
    file_hash: FileHash;
    nar_hash: NarHash;
    nar_size_bytes: number;
    file_size_bytes: number;
    compression: string;
    created_ms: number;
  };
  paths: {
    cache_id: string;
    hash_part: StorePathHash;
    store_path: StorePath;
    nar_hash: NarHash;
    nar_size_bytes: number;
    file_hash: FileHash;
    /** Base names, separated by spaces, sorted. */
    reference_names: string;
    deriver: StorePath | null;
    /** `name:base64`, one a line. */
    signatures: string;
    content_address: string | null;
    created_ms: number;
  };
  rollouts: {
    id: RolloutId;
    workspace_id: string;
    created_ms: number;
    /** Null: started through the control socket. */
    token_id: TokenId | null;
    description: string | null;
    /** CI facts, JSON. */
    origin: string;
  };
  idempotency_keys: {
    /** The id of the token that it came with; `control` for the control socket. */
    owner: string;
    key: string;
    /** SHA-256 of what was asked for, hexadecimal. */
    fingerprint: string;
    rollout_id: RolloutId;
    created_ms: number;
  };
  deployments: {
    /** Counts up in the order of creation; clocks may stand still or go back. */
    number: Generated<number>;
    id: DeploymentId;
    rollout_id: RolloutId;
    workspace_id: string;
    agent_id: AgentId;
    store_path: StorePath;
    mode: Mode;
    rollback_script: StorePath | null;
    /** ActivationPolicy, JSON. */
    policy: string;
    /** HealthCheck[], JSON. */
    health_checks: string;
    state: DeploymentState;
    /** What the agent was asked to stop for; the agent's word decides. */
    stop_requested: "cancelled" | "superseded" | null;
    reason: string | null;
    previous_path: StorePath | null;
    created_ms: number;
    started_ms: number | null;
    finished_ms: number | null;
    closure_size_bytes: number;
    fetched_bytes: number | null;
    exit_code: number | null;
    /** Milliseconds by phase, JSON. */
    phase_ms: string;
    /** As its device counts it, which may have a setting of its own; null: it has not said. */
    confirm_window_ms: number | null;
    /** UnitChanges, JSON; null unless a dry activation said what it would do. */
    unit_changes: string | null;
    /** Of the log lines that are stored, before compression. */
    log_bytes: number;
    log_truncated: number;
    /** The log was deleted by age or count. */
    log_expired: number;
    /** The last journal entry stored. */
    journal_through: number;
    /** Somebody at the machine did, and its agent announced it: neither queued nor offered, and no place taken. */
    started_on_device: number;
    fault: Fault | null;
    /** The deployment that this one tries again. */
    retry_of: DeploymentId | null;
    /** Counts from 1 up where the coordinator tries again by itself. */
    attempt: number;
    /** Not offered earlier; null: at once. */
    not_before_ms: number | null;
    /** Waits no longer than until then; null: for ever. */
    expires_ms: number | null;
    /** When its agent was told of it; null: it was not, or says that it was not. */
    offered_ms: number | null;
    /** What the agent said when it had ended here already. See `deployments/late-outcome.ts`. */
    late_outcome: Outcome | null;
    late_reason: string | null;
    late_ms: number | null;
    /** Since when nothing has come of it, although it runs; null: something does. See `deployments/stalls.ts`. */
    stalled_ms: number | null;
    /** A person wants it, whatever it did on this device before. */
    lifts_quarantine: number;
  };
  events: {
    id: Generated<number>;
    at_ms: number;
    workspace_id: string;
    /** `deployment`, `rollout` …; a later version may have written others. */
    kind: string;
    rollout_id: RolloutId | null;
    deployment_id: DeploymentId | null;
    agent_id: AgentId | null;
    /** What there is to say besides, JSON, by kind. */
    data: string;
  };
  /** At most one for each workspace. */
  webhooks: {
    workspace_id: string;
    url: string;
    /** `whsec_…`, as it is: it signs. */
    secret: string;
    /** The one before, which signs too until then; null: none. */
    old_secret: string | null;
    old_secret_until_ms: number | null;
    /** Kinds, separated by commas; "" for all. */
    events: string;
    created_ms: number;
    /** The last event that is in a delivery, or was passed over. */
    after_event_id: number;
    /** Tries that failed since the last that got through. */
    failures: number;
    failing_since_ms: number | null;
    /** Not before; 0: at once. */
    next_attempt_ms: number;
  };
  webhook_deliveries: {
    /** Counts up in the order of their making. */
    number: Generated<number>;
    id: string;
    workspace_id: string;
    kind: "events" | "test";
    state: "pending" | "delivered" | "given-up";
    /** Of the events in it, JSON. */
    event_ids: string;
    /** When the newest of them happened. */
    newest_ms: number;
    created_ms: number;
    finished_ms: number | null;
    attempts: number;
    /** Of the last try, as the next three. */
    attempted_ms: number | null;
    /** Null: no answer. */
    status: number | null;
    duration_ms: number | null;
    error: string | null;
  };
  agent_peaks: {
    workspace_id: string;
    /** `2026-11`, UTC. */
    month: string;
    peak: number;
    /** When it was reached. */
    at_ms: number;
  };
  audit_log: {
    id: Generated<number>;
    at_ms: number;
    workspace_id: string | null;
    actor_kind: "token" | "agent" | "control";
    actor_id: string | null;
    actor_name: string;
    address: string | null;
    act: string;
    target: string;
    effect: string;
    request_id: string | null;
  };
  log_chunks: {
    id: Generated<number>;
    deployment_id: DeploymentId;
    rollout_id: RolloutId;
    first_n: number;
    last_n: number;
    /** Of the body before compression. */
    text_bytes: number;
    /** Zstandard over `LogLine[]` as JSON. */
    body: Uint8Array;
  };
};
