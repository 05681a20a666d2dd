/** The chores of a coordinator (`upkeep.ts` runs them): what is looked after while it serves, and how often. */
import { deleteAuditRows } from "../database/audit.ts";
import { releasePages } from "../database/dialect.ts";
import type { Services } from "../services.ts";
import type { ReadinessReport } from "./readiness.ts";
import type { Chore } from "./upkeep.ts";

const BEAT_MS = 1_000;
/** With the time that a write may take, a stuck disk is said within 15 s. */
const READINESS_MS = 10_000;
const CATCH_UP_MS = 60_000;
const PEAKS_MS = 10_000;
const REST_MS = 30_000;
const HOUR_MS = 60 * 60 * 1000;
/** Deleted in one statement, which holds up everything else. */
const DELETED_AT_ONCE = 1_000;

export type ChoreOptions = {
  /** Called each second while the process moves. */
  readonly onBeat: () => void;
  /** The audit log's lines are deleted when they are older. */
  readonly keepAuditMs: number;
};

export function listChores(services: Services, { onBeat, keepAuditMs }: ChoreOptions): readonly Chore[] {
  const { meters, metrics, readiness, log } = services;
  const sayReadiness = createReadinessNews();
  return [
    {
      what: "measure the event loop",
      everyMs: BEAT_MS,
      run(lateMs) {
        meters.eventLoopLag(lateMs);
        onBeat();
      },
    },
    {
      what: "look whether the coordinator is ready",
      everyMs: READINESS_MS,
      async run() {
        const news = sayReadiness(await readiness.check());
        if (news?.ready === false) log.error("not ready", { reason: news.reason });
        if (news?.ready === true) log.info("ready again");
      },
    },
    { what: "write how many agents were connected", everyMs: PEAKS_MS, run: () => services.peaks.save() },
    {
      what: "delete old lines of the audit log",
      everyMs: HOUR_MS,
      run: () => deleteOldAuditRows(services, keepAuditMs),
    },
    { what: "give memory back", everyMs: REST_MS, run: () => giveMemoryBack(services) },
    { what: "count what has ended", everyMs: CATCH_UP_MS, run: () => metrics.catchUp() },
  ];
}

async function deleteOldAuditRows({ database, clock }: Services, keepMs: number): Promise<void> {
  const which = { beforeMs: clock.nowMs() - keepMs, limit: DELETED_AT_ONCE };
  while ((await deleteAuditRows(database, which)) === DELETED_AT_ONCE);
}

/**
 * What a busy time has left: the collector by itself keeps the room for it, and SQLite its pages. Takes some hundredths of
 * a second with ten thousand agents.
 */
async function giveMemoryBack({ database }: Services): Promise<void> {
  await releasePages(database);
  Bun.gc(true);
}

/** What of a look is news: that something is wrong, or something else than before, or nothing any more. */
export function createReadinessNews() {
  let saidKinds = "";
  return ({
    reasons,
  }: ReadinessReport): { readonly ready: true } | { readonly ready: false; readonly reason: string } | null => {
    // How long and how full it is now is no news.
    const kinds = reasons.map((reason) => reason.replaceAll(/\d+/g, "")).join("; ");
    if (kinds === saidKinds) return null;
    saidKinds = kinds;
    return reasons.length === 0 ? { ready: true } : { ready: false, reason: reasons.join("; ") };
  };
}
