/**
 * One agent's connection: challenge, hello, welcome, then its frames, one after the other. Owns nothing durable: what
 * must survive is in the database before it is acknowledged.
 */

import { isTerminal } from "../../deployment.ts";
import type { Logger } from "../../log.ts";
import type { AgentId, DeploymentId } from "../../names.ts";
import { formatPublicKey, parseSecretKey, publicKeyOf } from "../../nix/signing-key.ts";
import { type AgentFrame, type CoordinatorFrameInput, decodeAgentFrame, PROTOCOL_VERSION } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import { type Authenticator, READ_CREDENTIAL_LIFETIME_MS } from "../access/authentication.ts";
import type { Bus } from "../bus.ts";
import { type AgentRow, findAgent, saveAgentState } from "../database/agents.ts";
import { findDeployment } from "../database/deployments.ts";
import type { CoordinatorDatabase } from "../database/schema.ts";
import { listWorkspaces, loadWorkspaceCache } from "../database/workspaces.ts";
import { takeAnnouncement } from "../deployments/announcements.ts";
import type { Dispatcher } from "../deployments/dispatcher.ts";
import { takeReport } from "../deployments/reports.ts";
import { rolloutTopic } from "../deployments/transition.ts";
import type { Meters } from "../operations/metrics/meters.ts";
import { login } from "./login.ts";
import type { AgentRegistry, LiveAgent } from "./registry.ts";

export type AgentSessionDeps = {
  readonly database: CoordinatorDatabase;
  readonly authenticator: Authenticator;
  readonly registry: AgentRegistry;
  readonly dispatcher: Dispatcher;
  readonly bus: Bus;
  readonly meters: Meters;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly version: string;
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

type HelloFrame = Extract<AgentFrame, { kind: "hello" }>;

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

type SessionState =
  | { readonly kind: "challenged"; readonly nonce: string }
  | { readonly kind: "live"; readonly agent: AgentRow; readonly live: LiveAgent }
  | { readonly kind: "closed" };

export function createAgentSession(deps: AgentSessionDeps, socket: AgentSocket): AgentSession {
  let state: SessionState = {
    kind: "challenged",
    nonce: Buffer.from(deps.random.bytes(NONCE_BYTES)).toString("base64"),
  };
  let closing: Promise<void> | null = null;

  const { send, refuse } = createOutgoing(socket, deps.meters);
  const loginDeadline = createDeadline(deps.clock, LOGIN_MAX_MS, () => refuse("too-slow", "no hello came in time"));
  const renewal = createDeadline(deps.clock, drawRenewalMs(deps.random), () =>
    socket.close(CLOSE_NORMAL, "log in again: the credential wants renewal"),
  );

  const handleHello = async (frame: HelloFrame, nonce: string) => {
    const result = await login(deps, { hello: frame, nonce });
    if (result.kind === "refused") {
      deps.log.warn("agent refused", { name: frame.name, code: result.code, reason: result.message });
      send(result);
      socket.close(CLOSE_POLICY, result.code);
      return;
    }
    const { agent } = result;
    send(await welcomeFrame(deps, agent, frame));
    // It comes to be heard, and leaves; the agent's own connection stays what it is.
    if (frame.proof?.by === "supervisor") return socket.close(CLOSE_NORMAL, "heard");
    const live = createLiveAgent(agent.id, { send, socket });
    state = { kind: "live", agent, live };
    await loginDeadline.stop();
    renewal.start();
    deps.registry.enter(live);
    // Whoever removed or replaced it in the meantime did not find it among those that are connected.
    if (!(await isStillAgent(deps.database, agent))) return socket.close(CLOSE_NORMAL, "log in again");
    deps.log.info("agent connected", { name: agent.name, version: agent.agent_version });
    await deps.dispatcher.welcome(agent.id, frame.state);
  };
  const handleFrame = async (text: string) => {
    const decoded = decodeAgentFrame(text);
    deps.meters.frame("received", decoded.kind === "frame" ? decoded.frame.kind : decoded.kind);
    if (decoded.kind === "malformed")
      return refuse("malformed", `cannot read the frame: ${decoded.reason}`.slice(0, 500));
    if (decoded.kind === "unknown") {
      const message = `this coordinator does not know ${decoded.frameKind}`;
      return send({ kind: "error", code: "unknown-kind", message });
    }
    if (state.kind === "closed") return;
    if (state.kind === "live") return await handleLiveFrame(deps, { agentId: state.agent.id, send }, decoded.frame);
    if (decoded.frame.kind !== "hello") return refuse("not-logged-in", "the first frame must be a hello");
    await handleHello(decoded.frame, state.nonce);
  };
  const frames = createFrameQueue({
    handle: handleFrame,
    onFull: () => refuse("too-fast", "too many frames wait for an answer"),
    onError(error) {
      deps.log.error("cannot handle an agent's frame", { reason: String(error) });
      socket.close(CLOSE_INTERNAL_ERROR, "internal error");
    },
  });
  const end = async () => {
    await loginDeadline.stop();
    await renewal.stop();
    await frames.idle();
    if (state.kind === "live" && deps.registry.leave(state.live)) {
      await saveAgentState(deps.database, state.agent.id, { last_seen_ms: deps.clock.nowMs() });
      await deps.dispatcher.contactLost(state.agent.id);
      deps.log.info("agent disconnected", { name: state.agent.name });
    }
    state = { kind: "closed" };
  };

  return {
    open() {
      if (state.kind !== "challenged") return;
      loginDeadline.start();
      send(challengeFrame(deps, state.nonce));
    },
    receive: frames.push,
    closed() {
      closing ??= end().catch((error: unknown) => {
        deps.log.error("cannot record that an agent left", { reason: String(error) });
      });
      return closing;
    },
  };
}

/** Frames one after the other, and not too many of them. */
function createFrameQueue(on: {
  readonly handle: (text: string) => Promise<void>;
  readonly onFull: () => void;
  readonly onError: (error: unknown) => void;
}) {
  let queue: Promise<void> = Promise.resolve();
  let pending = 0;
  return {
    idle: () => queue,
    push(text: string): Promise<void> {
      if (pending >= PENDING_FRAMES_MAX) {
        on.onFull();
        return queue;
      }
      pending += 1;
      queue = queue
        .then(() => on.handle(text))
        .catch(on.onError)
        .finally(() => {
          pending -= 1;
        });
      return queue;
    },
  };
}

function drawRenewalMs(random: Random): number {
  const part = RENEWAL.earliest + random.fraction() * (RENEWAL.latest - RENEWAL.earliest);
  return Math.round(part * READ_CREDENTIAL_LIFETIME_MS);
}

/** Calls back once unless it is stopped in time. */
function createDeadline(clock: Clock, durationMs: number, onLate: () => void) {
  const stopped = new AbortController();
  let waiting: Promise<void> = Promise.resolve();
  return {
    start() {
      // A sleep ends early only by being stopped.
      waiting = clock.sleep(durationMs, stopped.signal).then(onLate, () => {});
    },
    async stop() {
      stopped.abort();
      await waiting;
    },
  };
}

function createOutgoing(socket: AgentSocket, meters: Meters) {
  const send = (frame: CoordinatorFrameInput) => {
    meters.frame("sent", frame.kind);
    if (!socket.send(JSON.stringify(frame))) socket.close(CLOSE_POLICY, "too slow");
  };
  const refuse = (code: string, message: string) => {
    send({ kind: "error", code, message });
    socket.close(CLOSE_POLICY, message.slice(0, 100));
  };
  return { send, refuse };
}

function challengeFrame(deps: AgentSessionDeps, nonce: string): CoordinatorFrameInput {
  return {
    kind: "challenge",
    protocolVersions: { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION },
    coordinatorVersion: deps.version,
    nonce,
  };
}

async function welcomeFrame(
  deps: AgentSessionDeps,
  agent: AgentRow,
  hello: HelloFrame,
): Promise<CoordinatorFrameInput> {
  const workspaces = await listWorkspaces(deps.database);
  const workspace = workspaces.find((candidate) => candidate.id === agent.workspace_id);
  if (workspace === undefined) throw new Error(`agent ${agent.name} belongs to no workspace`);
  const cache = await loadWorkspaceCache(deps.database, agent.workspace_id);
  return {
    kind: "welcome",
    agentId: agent.id,
    ...(agent.name === hello.name ? {} : { name: agent.name }),
    workspace: workspace.name,
    cache: {
      name: cache.name,
      path: `/cache/${cache.name}`,
      publicKeys: [formatPublicKey(publicKeyOf(parseSecretKey(cache.secret_key)))],
    },
    readCredential: deps.authenticator.issueReadCredential(agent.id),
    ...(await findProved(deps.database, agent, hello)),
  };
}

function createLiveAgent(
  agentId: AgentId,
  { send, socket }: Pick<LiveAgent, "send"> & { readonly socket: AgentSocket },
): LiveAgent {
  return { agentId, send, close: (reason) => socket.close(CLOSE_NORMAL, reason) };
}

async function isStillAgent(database: CoordinatorDatabase, { id, public_key }: AgentRow): Promise<boolean> {
  const row = await findAgent(database, id);
  return row !== null && row.removed_ms === null && Buffer.from(row.public_key).equals(public_key);
}

/** What of a welcome says that this login proves a deployment: what the machine reports is what was asked for. */
async function findProved(
  database: CoordinatorDatabase,
  agent: AgentRow,
  { proof, state }: HelloFrame,
): Promise<{ readonly proved?: DeploymentId }> {
  if (proof === undefined) return {};
  const row = await findDeployment(database, proof.deploymentId);
  if (row === null || row.agent_id !== agent.id) return {};
  // One that has ended well may have to prove itself once more: after the next reboot.
  if (isTerminal(row.state) && row.state !== "succeeded" && row.state !== "degraded") return {};
  const runs = [state.currentPath, state.currentBasePath, state.profilePath].includes(row.store_path);
  return runs ? { proved: row.id } : {};
}

async function handleLiveFrame(
  deps: AgentSessionDeps,
  agent: { readonly agentId: AgentId; readonly send: (frame: CoordinatorFrameInput) => void },
  frame: AgentFrame,
): Promise<void> {
  switch (frame.kind) {
    case "hello":
      return agent.send({ kind: "error", code: "logged-in", message: "this connection is logged in already" });
    case "report": {
      const result = await takeReport(deps, { ...agent, deploymentId: frame.deploymentId, entries: frame.entries });
      agent.send({ kind: "acknowledge", deploymentId: frame.deploymentId, through: result.through });
      if (!result.ended) return;
      deps.registry.progress.delete(frame.deploymentId);
      return await deps.dispatcher.dispatch(agent.agentId);
    }
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
      return await saveAgentState(deps.database, agent.agentId, {
        state: JSON.stringify(frame.state),
        last_seen_ms: deps.clock.nowMs(),
      });
    case "ping":
      return agent.send({ kind: "pong" });
    case "error":
      return deps.log.warn("agent reports an error", { code: frame.code, message: frame.message });
    default:
      return frame satisfies never;
  }
}
