/** What a load agent does about an offer: the journal that it reports, in the reports that it comes in. */
import type { AgentFrameInput } from "../../src/protocol.ts";

type ReportFrame = Extract<AgentFrameInput, { kind: "report" }>;
export type EntryInput = ReportFrame["entries"][number];
type Content<Entry> = Entry extends unknown ? Omit<Entry, "n" | "atMs"> : never;

export type Plan =
  | { readonly kind: "ignore" }
  | {
      readonly kind: "deploy";
      /** Logs in once more before it reports, as the supervisor of an activation does. */
      readonly proves: boolean;
      /** Before it has anything to say: from half as long to one and a half times. */
      readonly worksMs: number;
      /** Made while it is sent, so that long journals take no memory. */
      readonly journalOf: () => Iterator<EntryInput[]>;
    };

/** By name, as it goes between processes. */
export type PlanName =
  | { readonly kind: "ignore" }
  /** A short deployment: its phases, a few lines, its outcome, in three reports. */
  | { readonly kind: "deployment" }
  /** One that prints this many lines. */
  | { readonly kind: "logs"; readonly lines: number };

/** What an agent puts into one report when its journal is long: the limit of the protocol. */
const LINES_PER_REPORT = 2_000;
const PHASES = ["fetching", "activating", "confirming"] as const;
const LINES_PER_PHASE = 5;
/** A quick download and activation. */
const WORKS_MS = 4_000;

export function planOf(name: PlanName): Plan {
  switch (name.kind) {
    case "ignore":
      return { kind: "ignore" };
    case "deployment":
      return { kind: "deploy", proves: true, worksMs: WORKS_MS, journalOf: () => numbered(shortJournal()) };
    case "logs":
      return { kind: "deploy", proves: false, worksMs: 0, journalOf: () => numbered(longJournal(name.lines)) };
    default:
      return name satisfies never;
  }
}

function* shortJournal(): Generator<Content<EntryInput>[]> {
  for (const phase of PHASES) {
    const lines = Array.from({ length: LINES_PER_PHASE }, (_, index) => lineOf(index));
    const last = phase === "confirming" ? [outcome()] : [];
    yield [{ type: "phase", phase, previousPath: null }, ...lines, ...last];
  }
}

function* longJournal(lines: number): Generator<Content<EntryInput>[]> {
  yield [{ type: "phase", phase: "activating", previousPath: null }];
  for (let from = 0; from < lines; from += LINES_PER_REPORT) {
    const length = Math.min(LINES_PER_REPORT, lines - from);
    yield Array.from({ length }, (_, index) => lineOf(from + index));
  }
  yield [outcome()];
}

/** 80 to 90 characters, of which much repeats: as compilers and service managers print. */
function lineOf(index: number): Content<EntryInput> {
  const unit = (index * 7_919) % 10_007;
  return {
    type: "log",
    stream: "out",
    text: `starting the following units: service-${unit}.service, timer-${index}.timer: done`,
  };
}

function outcome(): Content<EntryInput> {
  return {
    type: "outcome",
    outcome: "succeeded",
    reason: "The new version is live.",
    previousPath: null,
    fetchedBytes: 1_000,
    exitCode: 0,
    phaseMs: { fetching: 10, activating: 20, confirming: 5 },
  };
}

function* numbered(reports: Iterable<Content<EntryInput>[]>): Generator<EntryInput[]> {
  let n = 0;
  for (const report of reports) {
    const atMs = Date.now();
    yield report.map((entry) => {
      n += 1;
      return { ...entry, n, atMs };
    });
  }
}
