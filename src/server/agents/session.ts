/**
 * One agent's connection: challenge, hello, welcome, then its frames, one after the other. Owns nothing durable: what
 * must survive is in the database before it is acknowledged.
 */
import { decodeAgentFrame } from "../../frames.ts";
import type { Logger } from "../../log.ts";
import type { AgentId, AgentName } from "../../names.ts";
import { type AgentFrame, type CoordinatorFrameInput, PROTOCOL_VERSION } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import { type Authenticator, READ_CREDENTIAL_LIFETIME_MS } from "../access/authentication.ts";
import type { FailedLogins } from "../access/failed-logins.ts";
import type { Bus } from "../bus.ts";
import { type AgentRow, findAgent, saveAgentState } from "../database/agents.ts";
import { findDeployment } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import type { WriteQueue } from "../database/write-queue.ts";
import { takeAnnouncement } from "../deployments/announcements.ts";
import type { Dispatcher } from "../deployments/dispatcher.ts";
import { OpenReport, takeReport } from "../deployments/reports.ts";
import { rolloutTopic } from "../deployments/transition.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { NO_VISIT, type Visit } from "../requests/visit.ts";
import type { ToldCaches } from "../workspaces/told-caches.ts";
import { createDeadlines, type Deadline, type Deadlines } from "./deadlines.ts";
import { createIntake, type Intake, SMALL_CHARACTERS } from "./intake.ts";
import { login } from "./login.ts";
import type { AgentPeaks } from "./peaks.ts";
import { sayRefused } from "./refusals.ts";
import { AGENTS_TOPIC, type AgentRegistry, type LiveAgent } from "./registry.ts";
import { makeWelcome } from "./welcome.ts";

export type AgentSessionDeps = {
  readonly database: CoordinatorDatabase;
  readonly writes: WriteQueue;
  readonly authenticator: Authenticator;
  readonly registry: AgentRegistry;
  readonly dispatcher: Dispatcher;
  readonly bus: Bus;
  readonly peaks: AgentPeaks;
  readonly toldCaches: ToldCaches;
  readonly meters: Meters;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly version: string;
  readonly failedLogins: FailedLogins;
};

/** The connection as the session sees it; a websocket, or a pair of queues in a test. */
export type AgentSocket = {
  /** @returns false when the text could not be queued: the connection is as good as lost */
  send(text: string): boolean;
  close(code: number, reason: string): void;
};

export type AgentSession = {
  /** Sends the challenge. */
  open(): void;
  /** Takes a frame; frames are worked off in order, however quickly they come. */
  receive(text: string): Promise<void>;
  /** The connection is gone, for whatever reason, or is given up. Resolves when all of its frames are worked off. */
  closed(): Promise<void>;
};

/** All sessions of a coordinator. Disposed of, they are given up. */
export type AgentSessions = AsyncDisposable & { create(socket: AgentSocket, visit: Visit): AgentSession };

type HelloFrame = Extract<AgentFrame, { kind: "hello" }>;
type ReportFrame = Extract<AgentFrame, { kind: "report" }>;

const CLOSE_POLICY = 1008;
const CLOSE_NORMAL = 1000;
const CLOSE_INTERNAL_ERROR = 1011;
const NONCE_BYTES = 32;
/** Frames that wait while one is worked on; an agent has one or two reports in flight. */
const PENDING_FRAMES_MAX = 64;
/** Each agent draws its time between these parts of the credential's life, so that a fleet does not return at once. */
const RENEWAL = { earliest: 0.5, latest: 0.75 };
/** Whoever connects proves who it is within this time. */
const LOGIN_MAX_MS = 30_000;

/** Answered without a look at the schema: half of all frames of an idle fleet. As agents write it. */
const PING = JSON.stringify({ kind: "ping" } satisfies AgentFrame);
const PONG = JSON.stringify({ kind: "pong" } satisfies CoordinatorFrameInput);
/** How agents begin to write a report. */
const REPORT = '{"kind":"report"';
const NOTHING_TO_DO = Promise.resolve();

type SessionState =
  | { readonly kind: "challenged"; readonly nonce: string }
  | { readonly kind: "live"; readonly agentId: AgentId; readonly workspaceId: string; readonly name: AgentName }
  | { readonly kind: "closed" };

type SharedDeps = AgentSessionDeps & {
  readonly intake: Intake;
  readonly deadlines: Deadlines;
  readonly onClosed: (session: Session) => void;
};

/** Of a session. */
type Origin = { readonly socket: AgentSocket; readonly visit: Visit };

export function createAgentSessions(deps: AgentSessionDeps): AgentSessions {
  const sessions = new Set<Session>();
  const deadlines = createDeadlines(deps.clock);
  const shared: SharedDeps = {
    ...deps,
    deadlines,
    intake: createIntake(),
    onClosed: (session) => sessions.delete(session),
  };
  return {
    create(socket, visit) {
      const session = new Session(shared, { socket, visit });
      sessions.add(session);
      return session;
    },
    async [Symbol.asyncDispose]() {
      // At once: what they have to write is then one transaction.
      await Promise.all([...sessions].map((session) => session.closed()));
      await deadlines[Symbol.asyncDispose]();
    },
  };
}

/**
 * A class, because there are ten thousand: what they have in common is theirs once, and an idle one is two small objects.
 * It is its own entry in the registry, and its own deadline: first for the login, then for the renewal.
 */
class Session implements AgentSession, LiveAgent, Deadline {
  dueMs = 0;
  readonly #deps: SharedDeps;
  readonly #socket: AgentSocket;
  /** The request that became this connection; forgotten once the agent is known. */
  #visit: Visit;
  #state: SessionState;
  /** The end of the last frame; null while none is worked on. */
  #queue: Promise<void> | null = null;
  #pending = 0;
  #closing: Promise<void> | null = null;
  /** Waits to be stored. */
  #report: OpenReport | null = null;

  constructor(deps: SharedDeps, { socket, visit }: Origin) {
    this.#deps = deps;
    this.#socket = socket;
    this.#visit = visit;
    this.#state = { kind: "challenged", nonce: Buffer.from(deps.random.bytes(NONCE_BYTES)).toString("base64") };
  }

  /** @throws Error before the login */
  get agentId(): AgentId {
    if (this.#state.kind !== "live") throw new Error("no agent has logged in");
    return this.#state.agentId;
  }

  /** @throws Error before the login */
  get workspaceId(): string {
    if (this.#state.kind !== "live") throw new Error("no agent has logged in");
    return this.#state.workspaceId;
  }

  open(): void {
    if (this.#state.kind !== "challenged") return;
    this.#deps.deadlines.set(this, LOGIN_MAX_MS);
    this.send(challengeFrame(this.#deps, this.#state.nonce));
  }

  onLate(): void {
    if (this.#state.kind === "live") this.close("log in again: the credential wants renewal");
    else this.#refuse("too-slow", "no hello came in time");
  }

  send(frame: CoordinatorFrameInput): void {
    this.#deps.meters.frame("sent", frame.kind);
    this.#sendText(JSON.stringify(frame));
  }

  close(reason: string): void {
    this.#socket.close(CLOSE_NORMAL, reason);
  }

  receive(text: string): Promise<void> {
    if (this.#queue === null && text === PING && this.#state.kind === "live") {
      this.#deps.meters.frame("received", "ping");
      this.#deps.meters.frame("sent", "pong");
      this.#sendText(PONG);
      return NOTHING_TO_DO;
    }
    if (this.#joins(text)) return this.#queue ?? NOTHING_TO_DO;
    if (this.#pending >= PENDING_FRAMES_MAX) {
      this.#refuse("too-fast", "too many frames wait for an answer");
      return this.#queue ?? NOTHING_TO_DO;
    }
    this.#pending += 1;
    this.#queue = this.#handleAfter(this.#queue, text);
    return this.#queue;
  }

  closed(): Promise<void> {
    this.#closing ??= this.#end().catch((error: unknown) => {
      this.#deps.log.error("cannot record that an agent left", { reason: String(error) });
    });
    return this.#closing;
  }

  #sendText(text: string): void {
    if (!this.#socket.send(text)) this.#socket.close(CLOSE_POLICY, "too slow");
  }

  #refuse(code: string, message: string): void {
    this.send({ kind: "error", code, message });
    this.#socket.close(CLOSE_POLICY, message.slice(0, 100));
  }

  async #handleAfter(before: Promise<void> | null, text: string): Promise<void> {
    if (before !== null) await before;
    try {
      await this.#deps.intake.run(text.length, () => this.#handleFrame(text));
    } catch (error) {
      this.#deps.log.error("cannot handle an agent's frame", { reason: String(error) });
      this.#socket.close(CLOSE_INTERNAL_ERROR, "internal error");
    }
    this.#pending -= 1;
    if (this.#pending === 0) this.#queue = null;
  }

  async #handleFrame(text: string): Promise<void> {
    const decoded = decodeAgentFrame(text);
    this.#deps.meters.frame("received", decoded.kind === "frame" ? decoded.frame.kind : decoded.kind);
    if (decoded.kind === "malformed")
      return this.#refuse("malformed", `cannot read the frame: ${decoded.reason}`.slice(0, 500));
    if (decoded.kind === "unknown") {
      const message = `this coordinator does not know ${decoded.frameKind}`;
      return this.send({ kind: "error", code: "unknown-kind", message });
    }
    if (this.#state.kind === "closed") return;
    if (this.#state.kind === "live") {
      const { frame } = decoded;
      return frame.kind === "report" ? await this.#store(frame) : await handleLiveFrame(this.#deps, this, frame);
    }
    if (decoded.frame.kind !== "hello") return this.#refuse("not-logged-in", "the first frame must be a hello");
    await this.#handleHello(decoded.frame, this.#state.nonce);
  }

  /** @returns whether the text is a report that will be stored with the one before it, which is all that is worked on */
  #joins(text: string): boolean {
    if (this.#report === null || this.#pending !== 1 || !text.startsWith(REPORT)) return false;
    if (text.length > SMALL_CHARACTERS) return false;
    const decoded = decodeAgentFrame(text);
    if (decoded.kind !== "frame" || decoded.frame.kind !== "report" || !this.#report.add(decoded.frame)) return false;
    this.#deps.meters.frame("received", "report");
    return true;
  }

  async #store(frame: ReportFrame): Promise<void> {
    const deps = this.#deps;
    const { agentId } = this;
    this.#report = new OpenReport(agentId, frame);
    const { through, ended } = await takeReport(deps, this.#report).finally(() => {
      this.#report = null;
    });
    this.send({ kind: "acknowledge", deploymentId: frame.deploymentId, through });
    if (!ended) return;
    deps.registry.progress.delete(frame.deploymentId);
    await deps.dispatcher.dispatch(agentId);
  }

  async #handleHello(frame: HelloFrame, nonce: string): Promise<void> {
    const deps = this.#deps;
    const visit = this.#visit;
    const result = await login({ ...deps, visit }, { hello: frame, nonce });
    if (result.kind === "refused") {
      sayRefused(deps, { name: frame.name, visit, refusal: result });
      this.send(result);
      this.#socket.close(CLOSE_POLICY, result.code);
      return;
    }
    const { agent } = result;
    const { changes } = deps.toldCaches;
    const rotated = result.rotatedTo === undefined ? {} : { rotatedTo: result.rotatedTo };
    this.send({ ...(await makeWelcome(deps, { agent, hello: frame })), ...rotated });
    // It comes to be heard, and leaves; the agent's own connection stays what it is.
    if (frame.proof?.by === "supervisor") return this.close("heard");
    this.#state = { kind: "live", agentId: agent.id, workspaceId: agent.workspace_id, name: agent.name };
    deps.deadlines.set(this, drawRenewalMs(deps.random));
    deps.registry.enter(this);
    deps.bus.publish(AGENTS_TOPIC);
    deps.peaks.note(agent.workspace_id, deps.registry.onlineByWorkspace.get(agent.workspace_id) ?? 0);
    // Whoever changed its caches, removed or replaced it in the meantime did not find it among those that are connected.
    if (!(await isStillAgent(deps.database, agent))) return this.close("log in again");
    if (deps.toldCaches.changes !== changes)
      await deps.toldCaches.tell({ workspaceId: agent.workspace_id, send: (told) => this.send(told) });
    const { address, requestId } = visit;
    deps.log.info("agent connected", { name: agent.name, version: agent.agent_version, address, requestId });
    this.#visit = NO_VISIT;
    await deps.dispatcher.welcome(agent.id, frame.state);
  }

  async #end(): Promise<void> {
    const deps = this.#deps;
    deps.deadlines.clear(this);
    await this.#queue;
    // Set by a login that was under way.
    deps.deadlines.clear(this);
    if (this.#state.kind === "live" && deps.registry.leave(this)) {
      const { agentId, name } = this.#state;
      const seen = { last_seen_ms: deps.clock.nowMs() };
      try {
        await deps.writes.write((transaction) => saveAgentState(transaction, agentId, seen));
      } finally {
        // Only now: whoever is told looks up since when it is silent.
        await deps.dispatcher.contactLost(agentId);
      }
      deps.bus.publish(AGENTS_TOPIC);
      deps.log.info("agent disconnected", { name });
    }
    this.#state = { kind: "closed" };
    deps.onClosed(this);
  }
}

function drawRenewalMs(random: Random): number {
  const part = RENEWAL.earliest + random.fraction() * (RENEWAL.latest - RENEWAL.earliest);
  return Math.round(part * READ_CREDENTIAL_LIFETIME_MS);
}

function challengeFrame(deps: AgentSessionDeps, nonce: string): CoordinatorFrameInput {
  return {
    kind: "challenge",
    protocolVersions: { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION },
    coordinatorVersion: deps.version,
    nonce,
  };
}

async function isStillAgent(database: CoordinatorDatabase, { id, public_key }: AgentRow): Promise<boolean> {
  const row = await findAgent(database, id);
  return row !== null && row.removed_ms === null && Buffer.from(row.public_key).equals(public_key);
}

async function handleLiveFrame(
  deps: AgentSessionDeps,
  agent: LiveAgent,
  frame: Exclude<AgentFrame, ReportFrame>,
): Promise<void> {
  switch (frame.kind) {
    case "hello":
      return agent.send({ kind: "error", code: "logged-in", message: "this connection is logged in already" });
    case "announce": {
      const result = await takeAnnouncement(deps, { agentId: agent.agentId, announced: frame });
      if (result.kind === "refused") return agent.send({ kind: "error", code: result.code, message: result.message });
      agent.send({ kind: "acknowledge", deploymentId: frame.deploymentId, through: result.through });
      return await deps.dispatcher.dispatch(agent.agentId);
    }
    case "progress": {
      const row = await findDeployment(deps.database, frame.deploymentId);
      if (row?.agent_id !== agent.agentId || row.finished_ms !== null) return;
      deps.registry.progress.set(frame.deploymentId, frame);
      return deps.bus.publish(rolloutTopic(row.rollout_id));
    }
    case "state":
      return await deps.writes.write((transaction) =>
        saveAgentState(transaction, agent.agentId, {
          state: JSON.stringify(frame.state),
          last_seen_ms: deps.clock.nowMs(),
        }),
      );
    case "ping":
      return agent.send({ kind: "pong" });
    case "error":
      return deps.log.warn("agent reports an error", { code: frame.code, message: frame.message });
    default:
      return frame satisfies never;
  }
}
