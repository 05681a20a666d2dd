/**
 * Group commit: writes that come in the same turn of the event loop share one transaction, because what a commit costs is
 * the disk's word that it is safe, and ten thousand agents do not wait for ten thousand of them.
 *
 * Each write is as if it were alone: one that fails is undone by its savepoint and takes no other down; it resolves after
 * the commit, so what is acknowledged then is stored. Should the whole transaction be lost (the disk is full), every write
 * is tried once more, in a transaction of its own: then only those fail that cannot be had. A write may therefore be run
 * twice, of which nothing of the first time is left in the database: it must do nothing else than database calls.
 *
 * Writes are run in the order in which they came. It is no cache: nothing waits for longer than the turn and the
 * transactions before it.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../../runtime.ts";
import { type Savepoints, savepointsOf } from "./dialect.ts";
import type { CoordinatorDatabase } from "./schema.ts";

export type WriteQueue = {
  /** @returns what `work` returned, after the commit. @throws what it threw; nothing of it is stored then */
  write<Value>(work: (transaction: CoordinatorDatabase) => Promise<Value>): Promise<Value>;
};

/** Of one transaction, so that others get their turn of the event loop: a heartbeat, somebody who asks. */
const MEMBERS_MAX = 256;
/** No member is begun after this; what is left comes in the next one. */
const DURATION_MAX_MS = 40;

/** Writes its value or its error down, and says so once that is final. */
type Member = {
  readonly run: (transaction: CoordinatorDatabase) => Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
};

type Failed = { readonly member: Member; readonly error: unknown };

export function createWriteQueue(database: CoordinatorDatabase, clock: Pick<Clock, "monotonicMs">): WriteQueue {
  const waiting: Member[] = [];
  let isWorking = false;
  const workOff = async () => {
    isWorking = true;
    while (waiting.length > 0) {
      await nextTurn();
      await runTogether(database, { waiting, clock });
    }
    isWorking = false;
  };
  return {
    write(work) {
      const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<typeof work>>>();
      let take = () => {};
      const run = async (transaction: CoordinatorDatabase) => {
        const value = await work(transaction);
        take = () => resolve(value);
      };
      waiting.push({ run, resolve: () => take(), reject });
      if (!isWorking) void workOff();
      return promise;
    },
  };
}

type Turn = { readonly waiting: Member[]; readonly clock: Pick<Clock, "monotonicMs"> };

/** Takes members from those that wait. Never throws: each hears of its own end. */
async function runTogether(database: CoordinatorDatabase, turn: Turn): Promise<void> {
  const members: Member[] = [];
  let failed: readonly Failed[];
  try {
    failed = await database.transaction().execute((transaction) => runEach(transaction, { ...turn, members }));
  } catch {
    // Lost as a whole, or never begun: each one hears by itself why.
    const lost = members.length > 0 ? members : turn.waiting.splice(0, 1);
    for (const member of lost) await runAlone(database, member);
    return;
  }
  const errors = new Map(failed.map(({ member, error }) => [member, error]));
  for (const member of members) {
    if (errors.has(member)) member.reject(errors.get(member));
    else member.resolve();
  }
}

/** @param members those that were begun are put there */
async function runEach(
  transaction: CoordinatorDatabase,
  { waiting, clock, members }: Turn & { readonly members: Member[] },
): Promise<readonly Failed[]> {
  const savepoints: Savepoints = savepointsOf(transaction);
  const failed: Failed[] = [];
  const untilMs = clock.monotonicMs() + DURATION_MAX_MS;
  while (members.length < MEMBERS_MAX && (members.length === 0 || clock.monotonicMs() < untilMs)) {
    const member = waiting.shift();
    if (member === undefined) break;
    members.push(member);
    await savepoints.set();
    try {
      await member.run(transaction);
    } catch (error) {
      await savepoints.rollBack();
      failed.push({ member, error });
    }
    await savepoints.release();
  }
  return failed;
}

async function runAlone(database: CoordinatorDatabase, member: Member): Promise<void> {
  try {
    await database.transaction().execute(member.run);
    member.resolve();
  } catch (error) {
    member.reject(error);
  }
}
