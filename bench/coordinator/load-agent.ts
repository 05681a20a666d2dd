/**
 * An agent as the coordinator sees it, a thousand of which fit into one process: real handshake, key and signatures,
 * heartbeats at the real interval, the real agent's backoff, journals sent from the first unacknowledged entry with two
 * reports in flight. Keeps nothing on disk and activates nothing: what it is offered, it reports as done at once.
 */
import { createPrivateKey, type KeyObject, sign } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fullJitterMs } from "../../src/backoff.ts";
import { decodeCoordinatorFrame } from "../../src/frames.ts";
import { loginMessage } from "../../src/login-message.ts";
import type { DeploymentId } from "../../src/names.ts";
import { publicKeyFromSeed } from "../../src/nix/signature.ts";
import {
  type AgentFrameInput,
  type CoordinatorFrame,
  type Offer,
  PING_INTERVAL_MS,
  PROTOCOL_VERSION,
} from "../../src/protocol.ts";
import type { EntryInput, Plan } from "./load-plan.ts";

/** What all agents of a process have in common. */
export type LoadContext = {
  /** `ws://…/api/v1/agent/connect`; another one after a restart elsewhere. */
  url: string;
  /** For agents that were never admitted. */
  token: string | null;
  plan: Plan;
  /** Come back when the connection is lost, as agents do. */
  stays: boolean;
  readonly tally: Tally;
};

export type Tally = {
  connected: number;
  welcomes: number;
  offers: number;
  /** Deployments of which everything was acknowledged. */
  done: number;
  acknowledgedReports: number;
  proved: number;
  closed: number;
  lastWelcomeMs: number;
  lastOfferMs: number;
  firstReportMs: number;
  lastDoneMs: number;
  /** The first few things that should not have happened. */
  readonly complaints: string[];
};

type Journal = { readonly deploymentId: DeploymentId; readonly reports: Iterator<EntryInput[]>; inFlight: number[] };

const IN_FLIGHT_MAX = 2;
const RECONNECT = { baseMs: 1_000, maxMs: 60_000 } as const;
const RECONNECT_WHILE_ACTIVATING = { baseMs: 1_000, maxMs: 5_000 } as const;
const COMPLAINTS_MAX = 10;
/** DER of PrivateKeyInfo for Ed25519 up to the seed (RFC 8410). */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

export class LoadAgent {
  readonly #context: LoadContext;
  readonly #identity: Identity;
  #socket: WebSocket | null = null;
  #ping: Timer | null = null;
  #attempt = 0;
  #isWelcome = false;
  #profilePath: string | null = null;
  #journal: Journal | null = null;

  constructor(context: LoadContext, name: string) {
    this.#context = context;
    this.#identity = createIdentity(name);
  }

  connect(): void {
    const opened = new WebSocket(this.#context.url);
    this.#socket = opened;
    opened.onmessage = ({ data }) => {
      const decoded = decodeCoordinatorFrame(String(data));
      if (decoded.kind === "frame") this.#handle(decoded.frame);
      else complain(this.#context.tally, `${this.#identity.name} was sent nonsense`);
    };
    opened.onclose = () => {
      if (this.#socket === opened) this.#lost();
    };
  }

  close(): void {
    const open = this.#socket;
    this.#lost();
    open?.close();
  }

  #send(frame: AgentFrameInput): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  #handle(frame: CoordinatorFrame): void {
    switch (frame.kind) {
      case "challenge": {
        const said = { nonce: frame.nonce, profilePath: this.#profilePath, token: this.#context.token };
        this.#send(helloOf(this.#identity, said));
        return;
      }
      case "welcome":
        this.#welcomed();
        return;
      case "offer":
        this.#begin(frame).catch((error: unknown) => complain(this.#context.tally, String(error)));
        return;
      case "acknowledge":
        this.#acknowledged(frame.through);
        return;
      case "cancel":
      case "caches":
      case "pong":
        return;
      case "refused":
      case "error":
        complain(this.#context.tally, `${this.#identity.name}: ${frame.message}`);
        return;
      default:
        frame satisfies never;
    }
  }

  #welcomed(): void {
    const { tally } = this.#context;
    this.#isWelcome = true;
    this.#attempt = 0;
    tally.connected += 1;
    tally.welcomes += 1;
    tally.lastWelcomeMs = Date.now();
    this.#ping = setInterval(() => this.#send({ kind: "ping" }), PING_INTERVAL_MS);
  }

  async #begin(offer: Offer): Promise<void> {
    const { tally, plan } = this.#context;
    tally.offers += 1;
    tally.lastOfferMs = Date.now();
    if (plan.kind === "ignore" || this.#journal?.deploymentId === offer.deploymentId) return;
    this.#profilePath = offer.storePath;
    await sleep(plan.worksMs * (0.5 + Math.random()));
    if (plan.proves) await this.#prove(offer);
    this.#journal = { deploymentId: offer.deploymentId, reports: plan.journalOf(), inFlight: [] };
    this.#sendReports();
  }

  /** Until it is heard, as a supervisor does within its window. */
  async #prove(offer: Offer): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      const isHeard = await prove(this.#context, this.#identity, offer);
      if (isHeard) return;
      await sleep(fullJitterMs(attempt, Math.random(), RECONNECT_WHILE_ACTIVATING));
    }
  }

  #sendReports(): void {
    while (this.#journal !== null && this.#journal.inFlight.length < IN_FLIGHT_MAX) {
      const next = this.#journal.reports.next();
      if (next.done === true) return;
      this.#context.tally.firstReportMs ||= Date.now();
      this.#send({ kind: "report", deploymentId: this.#journal.deploymentId, entries: next.value });
      this.#journal.inFlight.push(next.value.at(-1)?.n ?? 0);
    }
  }

  #acknowledged(through: number): void {
    const { tally } = this.#context;
    if (this.#journal === null) return;
    const before = this.#journal.inFlight.length;
    this.#journal.inFlight = this.#journal.inFlight.filter((last) => last > through);
    tally.acknowledgedReports += before - this.#journal.inFlight.length;
    this.#sendReports();
    if (this.#journal.inFlight.length > 0) return;
    this.#journal = null;
    tally.done += 1;
    tally.lastDoneMs = Date.now();
    this.#send({ kind: "state", state: machineState(this.#profilePath) });
  }

  #lost(): void {
    const { tally, stays } = this.#context;
    if (this.#socket === null) return;
    this.#socket = null;
    if (this.#ping !== null) clearInterval(this.#ping);
    this.#ping = null;
    tally.closed += 1;
    if (this.#isWelcome) tally.connected -= 1;
    this.#isWelcome = false;
    if (this.#journal !== null) this.#journal.inFlight = [];
    if (!stays) return;
    setTimeout(() => this.connect(), fullJitterMs(this.#attempt, Math.random(), RECONNECT));
    this.#attempt += 1;
  }
}

type Identity = { readonly name: string; readonly key: KeyObject; readonly publicKey: string };

function createIdentity(name: string): Identity {
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: "der", type: "pkcs8" });
  return { name, key, publicKey: Buffer.from(publicKeyFromSeed(seed)).toString("base64") };
}

/** The login of a supervisor, over a connection of its own, that proves an activation. @returns whether it was heard */
function prove(context: LoadContext, identity: Identity, offer: Offer): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = new WebSocket(context.url);
  socket.onmessage = ({ data }) => {
    const decoded = decodeCoordinatorFrame(String(data));
    if (decoded.kind !== "frame") return;
    const { frame } = decoded;
    if (frame.kind === "challenge") {
      const proof = { deploymentId: offer.deploymentId, by: "supervisor" } as const;
      const { nonce } = frame;
      const hello = helloOf(identity, { nonce, profilePath: offer.storePath, token: null, proof });
      socket.send(JSON.stringify(hello));
    }
    if (frame.kind !== "welcome") return;
    const isHeard = frame.proved === offer.deploymentId;
    if (isHeard) context.tally.proved += 1;
    socket.close();
    resolve(isHeard);
  };
  socket.onclose = () => resolve(false);
  return promise;
}

function helloOf(
  identity: Identity,
  said: {
    readonly nonce: string;
    readonly profilePath: string | null;
    readonly token: string | null;
    readonly proof?: { readonly deploymentId: DeploymentId; readonly by: "supervisor" };
  },
): AgentFrameInput {
  const { name, key, publicKey } = identity;
  const { proof } = said;
  return {
    kind: "hello",
    protocolVersion: PROTOCOL_VERSION,
    agentVersion: "0.1.0",
    name,
    publicKey,
    signature: sign(null, loginMessage({ nonce: said.nonce, name, proof }), key).toString("base64"),
    system: "x86_64-linux",
    hostName: name,
    nixVersion: "2.31.2",
    profile: "/nix/var/nix/profiles/tools",
    state: machineState(said.profilePath),
    ...(said.token === null ? {} : { enrolmentToken: said.token }),
    ...(proof === undefined ? {} : { proof }),
  };
}

/** As a NixOS machine says it, with nothing wrong. */
function machineState(profilePath: string | null): Extract<AgentFrameInput, { kind: "hello" }>["state"] {
  const system = "/nix/store/3q7k0x2nw5r9vz8d1ysb4h6jfclgam0p-nixos-system-nuc-25.11.20251201.abcdef0";
  return {
    profilePath,
    generation: profilePath === null ? null : 1,
    currentPath: system,
    bootedPath: system,
    currentBasePath: null,
    rebootNeeded: [],
    failedUnits: [],
    failedUnitCount: 0,
    storeFreeBytes: 123_456_789_012,
    inFlight: null,
    unreported: [],
  };
}

function complain(tally: Tally, message: string): void {
  if (tally.complaints.length < COMPLAINTS_MAX) tally.complaints.push(message);
}
