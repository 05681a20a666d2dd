/**
 * An agent as the protocol wants it, over a real websocket, with its journals in memory: it takes what it is offered,
 * reports line by line and in the end an outcome, from the first entry that is not acknowledged, and comes back whenever
 * its connection breaks.
 */
import { decodeCoordinatorFrame } from "../../src/frames.ts";
import type { DeploymentId } from "../../src/names.ts";
import { AGENT_CONNECT_PATH, type CoordinatorFrame } from "../../src/protocol.ts";
import {
  createAgentIdentity,
  type EntryContent,
  helloOf,
  logEntry,
  machineState,
  outcomeEntry,
  phaseEntry,
  type ReportEntryInput,
} from "./scripted-agent.ts";

export type AgentJournal = {
  readonly deploymentId: DeploymentId;
  readonly entries: readonly ReportEntryInput[];
  /** The last entry that the coordinator has, as it said. */
  readonly acknowledged: number;
};

export type JournalingAgent = {
  readonly name: string;
  readonly isConnected: boolean;
  /** Frames so far. */
  readonly acknowledgements: number;
  /** What the coordinator must not do. */
  readonly faults: readonly string[];
  /** Those that are over, too. */
  journals(): readonly AgentJournal[];
  stop(): void;
};

type Journal = { readonly deploymentId: DeploymentId; readonly entries: ReportEntryInput[]; acknowledged: number };

/** Of one deployment. */
const REPORTS = 6;
const LINES_A_REPORT = 20;
const RECONNECT_MS = 20;

export function createJournalingAgent(options: {
  readonly name: string;
  readonly url: string;
  readonly token: string;
}): JournalingAgent {
  const identity = createAgentIdentity(options.name);
  const url = `${options.url.replace(/^http/, "ws")}${AGENT_CONNECT_PATH}`;
  const journals = new Map<DeploymentId, Journal>();
  const faults: string[] = [];
  let socket: WebSocket | null = null;
  let isConnected = false;
  let isStopped = false;
  let acknowledgements = 0;

  const isOver = ({ entries, acknowledged }: Journal) =>
    entries.at(-1)?.type === "outcome" && acknowledged === entries.length;
  const unfinished = () => [...journals.values()].filter((journal) => !isOver(journal));
  const add = ({ entries }: Journal, ...contents: readonly EntryContent[]) => {
    for (const content of contents) entries.push({ ...content, n: entries.length + 1, atMs: Date.now() });
  };
  const send = (frame: object) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
  };
  const report = ({ deploymentId, entries, acknowledged }: Journal) => {
    const rest = entries.slice(acknowledged);
    if (rest.length > 0) send({ kind: "report", deploymentId, entries: rest });
  };
  const goOn = (journal: Journal) => {
    const { entries } = journal;
    if (entries.at(-1)?.type !== "outcome") {
      const lines = Array.from({ length: LINES_A_REPORT }, () =>
        logEntry(`line of ${journal.deploymentId}, ${crypto.randomUUID()}`),
      );
      if (entries.length === 0) add(journal, phaseEntry("fetching"));
      add(journal, ...lines);
      if (entries.length > REPORTS * LINES_A_REPORT) add(journal, outcomeEntry("succeeded"));
    }
    report(journal);
  };
  const handle = (frame: CoordinatorFrame) => {
    switch (frame.kind) {
      case "challenge": {
        const [current, ...others] = unfinished().map(({ deploymentId }) => deploymentId);
        const state = { ...machineState(current ?? null), unreported: others };
        send({ ...helloOf(identity, frame.nonce), enrolmentToken: options.token, state });
        break;
      }
      case "welcome":
        isConnected = true;
        for (const journal of unfinished()) report(journal);
        break;
      case "offer": {
        if (journals.has(frame.deploymentId)) break;
        const journal = { deploymentId: frame.deploymentId, entries: [], acknowledged: 0 };
        journals.set(frame.deploymentId, journal);
        goOn(journal);
        break;
      }
      case "cancel": {
        const journal = journals.get(frame.deploymentId);
        if (journal !== undefined && journal.entries.at(-1)?.type !== "outcome")
          add(journal, outcomeEntry("cancelled"));
        break;
      }
      case "acknowledge": {
        const journal = journals.get(frame.deploymentId);
        if (journal === undefined) break;
        acknowledgements += 1;
        if (frame.through < journal.acknowledged) {
          faults.push(`${options.name}: ${frame.through} of ${frame.deploymentId} after ${journal.acknowledged}`);
        }
        journal.acknowledged = frame.through;
        if (!isOver(journal)) goOn(journal);
        break;
      }
      case "refused":
      case "error":
        faults.push(`${options.name}: ${frame.message}`);
        break;
      case "caches":
      case "pong":
        break;
      default:
        frame satisfies never;
    }
  };
  const connect = () => {
    if (isStopped) return;
    const opened = new WebSocket(url);
    socket = opened;
    opened.addEventListener("message", ({ data }) => {
      const decoded = decodeCoordinatorFrame(String(data));
      if (decoded.kind === "frame") handle(decoded.frame);
      else faults.push(`${options.name} cannot read ${String(data)}`);
    });
    opened.addEventListener("close", () => {
      isConnected = false;
      setTimeout(connect, RECONNECT_MS);
    });
  };
  connect();
  return {
    name: options.name,
    faults,
    get isConnected() {
      return isConnected;
    },
    get acknowledgements() {
      return acknowledgements;
    },
    journals: () => [...journals.values()].map((journal) => ({ ...journal, entries: [...journal.entries] })),
    stop() {
      isStopped = true;
      socket?.close();
    },
  };
}
