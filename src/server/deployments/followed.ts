/**
 * What a follower of a rollout knows of its deployments, as it sent them last, and what of that is not true any more. It
 * is told of changes and looks at those only: to go through all of ten thousand deployments for each report of one of
 * them cost more than the reports. Reads no database and waits for nothing.
 */
import type { DeploymentDto } from "../../api/deployments.ts";
import { type DeploymentState, isTerminal } from "../../deployment.ts";
import type { AgentId, AgentName, DeploymentId } from "../../names.ts";
import type { Progress } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { AgentRegistry, Contact, ContactWatch } from "../agents/registry.ts";

/** A deployment as it was sent last. */
export type Followed = {
  readonly id: DeploymentId;
  readonly agentId: AgentId;
  readonly agent: AgentName;
  readonly state: DeploymentState;
  readonly contact: Contact;
  /** When it begins to count as offline, unless it connects; epoch milliseconds. */
  readonly offlineFromMs: number;
};

/** Whoever waits for these ends when their agent counts as offline. */
const WAITING: readonly DeploymentState[] = ["queued", "offered"];

export class FollowedDeployments implements Disposable {
  readonly #registry: AgentRegistry;
  readonly #clock: Clock;
  readonly #watch: ContactWatch;
  readonly #all = new Map<DeploymentId, Followed>();
  /** Those that have not ended, by their agents, which have one each. */
  readonly #live = new Map<AgentId, Followed>();
  /** Of those the ones whose agent is away and does not count as offline yet. */
  readonly #silent = new Map<DeploymentId, Followed>();
  /** Bytes of each running download, as they were sent last. */
  readonly #bytes = new Map<DeploymentId, number>();

  constructor({ registry, clock }: { readonly registry: AgentRegistry; readonly clock: Clock }) {
    this.#registry = registry;
    this.#clock = clock;
    this.#watch = registry.watch();
  }

  /** How many have not ended. */
  get liveCount(): number {
    return this.#live.size;
  }

  find(id: DeploymentId): Followed | null {
    return this.#all.get(id) ?? null;
  }

  /** It is sent, as this row and this answer say it. */
  note(
    { id, agent_id }: { readonly id: DeploymentId; readonly agent_id: AgentId },
    { agent, state, contact }: Pick<DeploymentDto, "agent" | "state" | "contact">,
    offlineFromMs: number,
  ): void {
    const noted: Followed = { id, agentId: agent_id, agent, state, contact, offlineFromMs };
    this.#all.set(id, noted);
    this.#silent.delete(id);
    if (isTerminal(state)) {
      if (this.#live.get(agent_id)?.id === id) this.#live.delete(agent_id);
      this.#bytes.delete(id);
      return;
    }
    this.#live.set(agent_id, noted);
    if (contact === "unknown") this.#silent.set(id, noted);
  }

  /** Those that have not ended and whose agent is in another contact than was sent. */
  takeOtherContacts(): readonly DeploymentId[] {
    const looked = new Set(this.#silent.values());
    for (const agentId of this.#watch.take()) {
      const known = this.#live.get(agentId);
      if (known !== undefined) looked.add(known);
    }
    return [...looked].filter((known) => this.#contactNow(known) !== known.contact).map(({ id }) => id);
  }

  /** What downloads have moved since they were sent. */
  *takeProgress(): Generator<{ readonly of: Followed; readonly progress: Progress }> {
    for (const progress of this.#registry.progress.values()) {
      const of = this.#all.get(progress.deploymentId);
      if (of === undefined || this.#bytes.get(of.id) === progress.bytes) continue;
      this.#bytes.set(of.id, progress.bytes);
      yield { of, progress };
    }
  }

  get isDownloading(): boolean {
    for (const { deploymentId } of this.#registry.progress.values()) {
      const known = this.#all.get(deploymentId);
      if (known !== undefined && !isTerminal(known.state)) return true;
    }
    return false;
  }

  /** Until the next agent for which somebody waits counts as offline, milliseconds; null when none will. */
  untilNextOfflineMs(): number | null {
    const nowMs = this.#clock.nowMs();
    let nextMs: number | null = null;
    for (const { state, agentId, offlineFromMs } of this.#silent.values()) {
      if (!WAITING.includes(state) || this.#registry.find(agentId) !== null || offlineFromMs < nowMs) continue;
      nextMs = Math.min(nextMs ?? Number.POSITIVE_INFINITY, offlineFromMs - nowMs + 1);
    }
    return nextMs;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
  }

  #contactNow(known: Followed): Contact {
    if (this.#registry.find(known.agentId) !== null) return "online";
    // Lost since it was sent last: when it was seen last is in the database.
    if (known.contact === "online") return "unknown";
    return this.#clock.nowMs() < known.offlineFromMs ? "unknown" : "offline";
  }
}
