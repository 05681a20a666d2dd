/**
 * Keeps the agent connected: logs in, runs the session, and comes back with full-jitter backoff from 1 s to 60 s after
 * whatever ends it. Remembers the enrolment and pins cache keys at the first contact. Ends only with its signal, or when
 * the very first login is refused for its credential (`refusal.ts`).
 */
import { type BackoffLimits, fullJitterMs } from "../../backoff.ts";
import { describeError, NixdeployError } from "../../errors.ts";
import { parseGoodbye } from "../../goodbye.ts";
import type { Logger } from "../../log.ts";
import type { AgentName, DeploymentId } from "../../names.ts";
import type { ToldCaches, Welcome } from "../../protocol.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { DeploymentStore } from "../journal/deployment-store.ts";
import type { Contact } from "./contact.ts";
import { type Enrolment, isSameEnrolment, planPins, writeEnrolment } from "./enrolment.ts";
import type { Identity, Keys } from "./identity.ts";
import { type HelloFacts, type Proof, sendFrame } from "./login.ts";
import { type KeyLogin, loginWithKeys } from "./login-with-keys.ts";
import type { DialMessageSocket } from "./message-socket.ts";
import { planRefusal } from "./refusal.ts";
import { LOSSY_BUFFER_MAX_BYTES, runSession, type SessionHandlers } from "./session.ts";
import { firstCacheOf, planSubstituterPins } from "./substituter-pins.ts";

const RECONNECT = { baseMs: 1_000, maxMs: 60_000 } as const;
/** While somebody waits for this login: as the proof of an activation, or for its outcome. */
const RECONNECT_WHILE_ACTIVATING = { baseMs: 1_000, maxMs: 5_000 } as const;
/** A session that lasted so long was a success: the next wait is short again. */
const STABLE_AFTER_MS = 30_000;
/** How soon a key that was made while the agent is connected is registered. */
const NEXT_KEY_LOOK_MS = 5_000;

export type ConnectionOptions = {
  readonly coordinatorUrl: string;
  readonly name: AgentName;
  readonly stateDirectory: string;
  readonly keys: KeyRing;
  /** Of an earlier run; null before the first contact. */
  readonly enrolment: Enrolment | null;
  readonly enrolmentToken: string | null;
  /** From --trusted-public-key, `name:base64`. */
  readonly givenPublicKeys: readonly string[];
  readonly readFacts: () => Promise<HelloFacts>;
  /** The activation that the next login would prove; null when there is none. */
  readonly readProof: () => Promise<Proof | null>;
  /** An activation is on record, so the waits for the coordinator are short. */
  readonly isActivating: () => Promise<boolean>;
  /** The coordinator took a login for the proof. */
  readonly onProved: (deploymentId: DeploymentId) => Promise<void>;
  readonly store: DeploymentStore;
  readonly contact: Contact;
  readonly handlers: Omit<SessionHandlers, "onCaches"> & {
    /** Pins as they are now; told before the contact is established. */
    onPins(pins: Enrolment): void;
    onContactLost(): void;
  };
  readonly dial: DialMessageSocket;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

/** @throws NixdeployError("denied") after a first login that was refused · the signal's reason */
export async function runConnection(options: ConnectionOptions): Promise<never> {
  const { clock, random, logger, signal } = options;
  const memory: Memory = {
    enrolment: options.enrolment,
    sendToken: options.enrolment === null,
    lastComplaint: null,
    untaken: null,
  };
  for (let attempt = 0; ; ) {
    const startedAtMs = clock.monotonicMs();
    const end = await connectOnce(options, memory);
    signal.throwIfAborted();
    if (end.kind === "again") continue;
    if (end.kind === "give-up") throw new NixdeployError("denied", end.message, { hint: end.hint });
    const lastedMs = end.wasConnected ? clock.monotonicMs() - startedAtMs : 0;
    attempt = planAttempt(attempt, lastedMs);
    const isActivating = await options.isActivating().catch(() => false);
    const limits = isActivating ? RECONNECT_WHILE_ACTIVATING : planReconnect(end);
    const waitMs = fullJitterMs(attempt, random.fraction(), limits);
    attempt += 1;
    complain(end.message, memory, logger);
    await clock.sleep(waitMs, signal);
  }
}

/**
 * The first wait after a connection, as a power of two. One that lasted starts over. One that something cuts after a
 * few seconds, again and again, is taken up soon enough to be there most of the time. All others make waits grow. Pure.
 * @param attempt how many waits there were since the last success
 * @param lastedMs 0 when there was no connection
 */
export function planAttempt(attempt: number, lastedMs: number): number {
  if (lastedMs >= STABLE_AFTER_MS) return 0;
  const halfOfIt = Math.floor(Math.log2(lastedMs / RECONNECT.baseMs)) - 1;
  return lastedMs < RECONNECT.baseMs ? attempt : Math.min(attempt, Math.max(0, halfOfIt));
}

/** What the coordinator asked for when it closed the connection counts for the first waits after it. Pure. */
export function planReconnect(end: { readonly message: string; readonly wasConnected: boolean }): BackoffLimits {
  const returnWithinMs = end.wasConnected ? parseGoodbye(end.message) : null;
  return { ...RECONNECT, baseMs: Math.max(RECONNECT.baseMs, returnWithinMs ?? 0) };
}

type Memory = {
  enrolment: Enrolment | null;
  /** Whether the next login carries the token. */
  sendToken: boolean;
  /** What was logged last, so that an hour of the same trouble is one line. */
  lastComplaint: string | null;
  /** A next key that the coordinator did not take at the latest login. */
  untaken: string | null;
};

/** The keys of this device, which change while the agent runs. */
export type KeyRing = {
  /** @throws NixdeployError("host") */
  load(): Promise<Keys>;
  findNext(): Promise<Identity | null>;
  /** The next key is the key from now on. */
  promote(): Promise<void>;
};

type ConnectionEnd =
  | { readonly kind: "again" }
  | { readonly kind: "give-up"; readonly message: string; readonly hint: string }
  | { readonly kind: "retry"; readonly message: string; readonly wasConnected: boolean };

async function connectOnce(options: ConnectionOptions, memory: Memory): Promise<ConnectionEnd> {
  const token = memory.sendToken ? options.enrolmentToken : null;
  let keys: Keys;
  let result: KeyLogin;
  try {
    keys = await options.keys.load();
    result = await loginWithKeys({ ...options, keys, offerNext: true, enrolmentToken: token });
  } catch (error) {
    options.signal.throwIfAborted();
    const hint = error instanceof NixdeployError && error.hint !== undefined ? ` (${error.hint})` : "";
    return { kind: "retry", message: `${describeError(error)}${hint}`, wasConnected: false };
  }
  if (result.kind === "refused") {
    const plan = planRefusal({
      refusal: result.refusal,
      name: options.name,
      fingerprint: keys.current.fingerprint,
      hasToken: options.enrolmentToken !== null,
      tokenWasSent: token !== null,
      wasAdmitted: memory.enrolment !== null,
    });
    memory.sendToken = plan.kind === "send-token";
    if (plan.kind === "send-token") return { kind: "again" };
    if (plan.kind === "give-up") return plan;
    return { kind: "retry", message: `${plan.message} (${plan.hint})`, wasConnected: false };
  }
  const { welcome, socket, frames } = result;
  try {
    if (result.hasNewKey) await takeNextKey(options);
    await remember(welcome, options, memory);
    if (welcome.proved !== undefined) await options.onProved(welcome.proved);
  } catch (error) {
    socket.destroy();
    return {
      kind: "retry",
      message: `cannot record what the welcome says: ${describeError(error)}`,
      wasConnected: false,
    };
  }
  options.logger.info(describeContact(welcome, options));
  memory.lastComplaint = null;
  options.contact.established(welcome, (frame) => {
    if (socket.bufferedBytes >= LOSSY_BUFFER_MAX_BYTES) return false;
    sendFrame(socket, frame);
    return true;
  });
  memory.untaken = result.hasNewKey ? null : (keys.next?.publicKey ?? null);
  const renewal = watchForNextKey(options, memory.untaken);
  const onCaches = async (told: ToldCaches) => {
    const { cache, substituters, keyVouchers } = told;
    const renewed = { ...(options.contact.welcome ?? welcome), cache, substituters, keyVouchers };
    await remember(renewed, options, memory);
    options.contact.renewed(renewed);
  };
  const handlers = { ...options.handlers, onCaches };
  const why = await runSession({ ...options, socket, frames, handlers, signal: renewal.signal });
  await renewal.stop();
  options.contact.lost();
  options.handlers.onContactLost();
  if (renewal.isDue) return { kind: "again" };
  return { kind: "retry", message: `connection lost: ${why}`, wasConnected: true };
}

function describeContact(welcome: Welcome, { coordinatorUrl, name }: ConnectionOptions): string {
  const known = welcome.name === undefined ? name : `${welcome.name}, as the operator renamed ${name}`;
  return `connected to ${coordinatorUrl} as ${known} (workspace ${welcome.workspace})`;
}

async function takeNextKey({ keys, logger }: ConnectionOptions): Promise<void> {
  await keys.promote();
  logger.info(`this device has a new key: ${(await keys.load()).current.fingerprint}`);
}

/**
 * Ends the session when a next key appears, so that the next login brings it along; unless it is one that this
 * coordinator has not taken (an older version, say), which goes along with whatever login comes next.
 */
function watchForNextKey({ keys, clock, signal, logger }: ConnectionOptions, untaken: string | null) {
  const due = new AbortController();
  const over = new AbortController();
  const ending = AbortSignal.any([signal, over.signal]);
  const isDue = async () => {
    const next = await keys.findNext();
    return next !== null && next.publicKey !== untaken;
  };
  const watch = async () => {
    for (let complaint = ""; ; ) {
      await clock.sleep(NEXT_KEY_LOOK_MS, ending);
      try {
        if (await isDue()) return due.abort(new Error("a new key waits"));
      } catch (error) {
        // A disk in trouble, or a file that its owner corrects: looked at again.
        const now = `cannot look for a new key: ${describeError(error)}`;
        if (now !== complaint) logger.warn(now);
        complaint = now;
      }
    }
  };
  const watching = watch().catch(() => {
    // The session or the agent ends.
  });
  return {
    signal: AbortSignal.any([signal, due.signal]),
    get isDue() {
      return due.signal.aborted && !signal.aborted;
    },
    async stop() {
      over.abort(new Error("the session ended"));
      await watching;
    },
  };
}

async function remember(welcome: Welcome, options: ConnectionOptions, memory: Memory): Promise<void> {
  const given = options.givenPublicKeys;
  const { enrolment: before } = memory;
  const pinned = before?.pinnedPublicKeys ?? [];
  const pinnedCache = firstCacheOf(before, welcome);
  // It may be the first no more, or gone.
  const told = [welcome.cache, ...(welcome.substituters ?? [])].find(({ name }) => name === pinnedCache);
  const decision = planPins({ given, pinned, cache: told ?? { name: pinnedCache, publicKeys: [...pinned] } });
  const others = planSubstituterPins({ given, enrolment: before, welcome, pinnedPublicKeys: decision.pinned });
  for (const warning of [...decision.warnings, ...others.warnings]) options.logger.warn(warning);
  const enrolment: Enrolment = {
    coordinatorUrl: options.coordinatorUrl,
    agentId: welcome.agentId,
    workspace: welcome.workspace,
    pinnedPublicKeys: [...decision.pinned],
    ...others.record,
  };
  if (!isSameEnrolment(before, enrolment)) await writeEnrolment(options.stateDirectory, enrolment);
  // Said once it is on the disk.
  for (const news of [...decision.news, ...others.news]) options.logger.info(news);
  memory.enrolment = enrolment;
  memory.sendToken = false;
  options.handlers.onPins(enrolment);
}

function complain(message: string, memory: Memory, logger: Logger): void {
  if (message === memory.lastComplaint) logger.debug(message);
  else logger.warn(`${message}; trying again`);
  memory.lastComplaint = message;
}
