/**
 * Brings the journals to the coordinator over one connection: from the first entry that it has not acknowledged, in
 * order, a few reports ahead of its acknowledgements. A new connection starts with a new reporter, which begins again
 * at the first unacknowledged entry; the coordinator drops what it has.
 *
 * What was started on this device it must be told of first: until it acknowledges that, nothing of it is sent. One that
 * refuses (or is too old to know) gets nothing; the journal waits for another day.
 */
import type { DeploymentId } from "../../names.ts";
import type { AgentFrameInput } from "../../protocol.ts";
import type { Clock } from "../../runtime.ts";
import type { DeploymentStore } from "../journal/deployment-store.ts";
import type { Journal } from "../journal/journal.ts";
import type { Cursor } from "../journal/journal-file.ts";
import { announcementOf } from "../journal/stored-offer.ts";

/** Reports of one deployment that may be on their way without an acknowledgement. */
const IN_FLIGHT_MAX = 2;

export type Reporter = {
  /** Sends until the signal is aborted. @throws the signal's reason · when a journal cannot be read */
  run(signal: AbortSignal): Promise<void>;
  /** The coordinator acknowledged something of this deployment, so it knows it. */
  known(deploymentId: DeploymentId): void;
  /** Monotonic time since when nothing was acknowledged although something is on its way; null when all is well. */
  readonly waitingSinceMs: number | null;
};

type Sent = {
  cursor: Cursor;
  /** Last entry of each report on its way. */
  inFlight: number[];
  /** As of the last look. */
  acknowledged: number;
};

export function createReporter(options: {
  readonly store: DeploymentStore;
  readonly send: (frame: AgentFrameInput) => void;
  readonly clock: Clock;
}): Reporter {
  const { store, send, clock } = options;
  const sentOf = new Map<DeploymentId, Sent>();
  const announced = new Set<DeploymentId>();
  const known = new Set<DeploymentId>();
  let waitingSinceMs: number | null = null;

  /** @returns whether its entries may be sent */
  const announce = ({ offer }: Journal): boolean => {
    const { deploymentId } = offer;
    const frame = announcementOf(offer);
    if (frame === null || known.has(deploymentId)) return true;
    if (!announced.has(deploymentId)) send(frame);
    announced.add(deploymentId);
    return false;
  };

  /** Takes note of what was acknowledged since the last look. */
  const settle = (journal: Journal): Sent => {
    const { acknowledged } = journal;
    const fresh: Sent = { cursor: acknowledged, inFlight: [], acknowledged: acknowledged.n };
    const known = sentOf.get(journal.offer.deploymentId);
    // Less acknowledged than before: the coordinator was set back, and everything after that is sent again.
    const sent = known === undefined || acknowledged.n < known.acknowledged ? fresh : known;
    sentOf.set(journal.offer.deploymentId, sent);
    if (acknowledged.n !== sent.acknowledged) waitingSinceMs = null;
    sent.acknowledged = acknowledged.n;
    sent.inFlight = sent.inFlight.filter((last) => last > acknowledged.n);
    if (acknowledged.n > sent.cursor.n) sent.cursor = acknowledged;
    return sent;
  };

  const sendWhatFits = async (journal: Journal) => {
    const { deploymentId } = journal.offer;
    if (!announce(journal)) return;
    for (;;) {
      const sent = settle(journal);
      if (sent.inFlight.length >= IN_FLIGHT_MAX || sent.cursor.n >= journal.durable.n) return;
      const { entries, next } = await journal.read(sent.cursor);
      // While it was read, the journal may have been acknowledged and forgotten.
      if (entries.length === 0 || store.find(deploymentId) !== journal) return;
      send({ kind: "report", deploymentId, entries: [...entries] });
      sent.cursor = next;
      sent.inFlight.push(next.n);
    }
  };

  return {
    known(deploymentId) {
      if (!announced.has(deploymentId) || known.has(deploymentId)) return;
      known.add(deploymentId);
      store.changes.changed();
    },
    get waitingSinceMs() {
      return waitingSinceMs;
    },
    async run(signal) {
      for (;;) {
        const { version } = store.changes;
        const { journals } = store;
        for (const journal of journals) {
          try {
            await sendWhatFits(journal);
          } catch (error) {
            // A journal that was forgotten while it was read has a closed file.
            if (store.find(journal.offer.deploymentId) === journal) throw error;
          }
        }
        for (const id of sentOf.keys()) if (store.find(id) === null) sentOf.delete(id);
        const isWaiting = [...sentOf.values()].some((sent) => sent.inFlight.length > 0);
        waitingSinceMs = isWaiting ? (waitingSinceMs ?? clock.monotonicMs()) : null;
        await store.changes.waitAfter(version, signal);
      }
    },
  };
}
