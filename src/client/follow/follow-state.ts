/**
 * What following a rollout has seen so far, and what it means: lines to print, when it is over, with which exit code.
 * No I/O; `follow.ts` brings the events.
 *
 *     state of the deployment              contact    for whoever follows
 *     succeeded                            any        good
 *     failed rolled-back degraded
 *       superseded cancelled expired       any        bad
 *     queued, offered (not accepted yet)   offline    parked: the agent takes it when it returns
 *     queued, offered                      else       running
 *     fetching … rolling-back              any        running: a lost connection is never an outcome
 *
 * Over when nothing runs. Exit code 1 when anything is bad, else 0; when following was cut short: 1 when anything is
 * bad already, else 75.
 */
import type { DeploymentDto, FollowEvent, LogLine } from "../../api/deployments.ts";
import { type DeploymentState, isTerminal } from "../../deployment.ts";
import type { DeploymentId } from "../../names.ts";

export type Contact = DeploymentDto["contact"];
export type Standing = "good" | "bad" | "parked" | "running";

export function standingOf(state: DeploymentState, contact: Contact): Standing {
  switch (state) {
    case "succeeded":
      return "good";
    case "failed":
    case "rolled-back":
    case "degraded":
    case "superseded":
    case "cancelled":
    case "expired":
      return "bad";
    case "queued":
    case "offered":
      return contact === "offline" ? "parked" : "running";
    case "fetching":
    case "activating":
    case "rebooting":
    case "confirming":
    case "rolling-back":
      return "running";
    default:
      return state satisfies never;
  }
}

/** One follower's, changed in place: thousands of deployments tell of themselves many times, and each costs the same. */
export type FollowState = {
  /** In the order of the rollout. */
  readonly deployments: ReadonlyMap<DeploymentId, DeploymentDto>;
  /** The coordinator has said that nothing more will come. */
  readonly ended: boolean;
  verdict(): FollowVerdict;
  /** Takes an event in. @returns what of it is news */
  apply(event: FollowEvent): readonly FollowNote[];
};

export type FollowNote =
  /** Something about a deployment, such as "nuc: fetching". */
  | { readonly kind: "state"; readonly deployment: DeploymentDto }
  | { readonly kind: "log"; readonly deployment: DeploymentId; readonly agent: string; readonly line: LogLine }
  | { readonly kind: "progress"; readonly progress: Extract<FollowEvent, { event: "progress" }>["data"] };

export type FollowVerdict =
  | { readonly kind: "running" }
  /** Nothing runs; `final` when nothing can change any more either, so that `end` is going to come. */
  | { readonly kind: "over"; readonly exitCode: 0 | 1; readonly final: boolean };

export function decideFollow(deployments: Iterable<DeploymentDto>): FollowVerdict {
  const counts = createCounts();
  for (const { state, contact } of deployments) counts[standingOf(state, contact)] += 1;
  return decideByCounts(counts);
}

type Counts = Record<Standing, number>;

function createCounts(): Counts {
  return { good: 0, bad: 0, parked: 0, running: 0 };
}

function decideByCounts({ running, bad, parked }: Counts): FollowVerdict {
  return running > 0 ? { kind: "running" } : { kind: "over", exitCode: bad > 0 ? 1 : 0, final: parked === 0 };
}

/** Exit code when the time was up or the coordinator could not be reached any more. */
export function decideCutShort(deployments: Iterable<DeploymentDto>): 1 | 75 {
  return [...deployments].some(({ state, contact }) => standingOf(state, contact) === "bad") ? 1 : 75;
}

export function createFollowState(deployments: readonly DeploymentDto[]): FollowState {
  const known = new Map<DeploymentId, DeploymentDto>();
  /** Number of the last log line seen; a stream that is opened again may repeat some. */
  const lastLines = new Map<DeploymentId, number>();
  const counts = createCounts();
  let ended = false;

  const set = (deployment: DeploymentDto) => {
    const before = known.get(deployment.id);
    if (before !== undefined) counts[standingOf(before.state, before.contact)] -= 1;
    counts[standingOf(deployment.state, deployment.contact)] += 1;
    known.set(deployment.id, deployment);
  };
  for (const deployment of deployments) set(deployment);

  return {
    deployments: known,
    get ended() {
      return ended;
    },
    verdict: () => decideByCounts(counts),
    apply(event) {
      switch (event.event) {
        case "deployment": {
          const isNews = isNewsAfter(known.get(event.data.id), event.data);
          set(event.data);
          return isNews ? [{ kind: "state", deployment: event.data }] : [];
        }
        case "phase": {
          const before = known.get(event.data.deployment);
          const passed = before === undefined ? null : passedThrough(before, event.data.state);
          if (before === undefined || passed === null || !isNewsAfter(before, passed)) return [];
          set(passed);
          return [{ kind: "state", deployment: passed }];
        }
        case "log": {
          const { deployment, agent, lines } = event.data;
          const last = lastLines.get(deployment) ?? 0;
          const fresh = lines.filter(({ n }) => n > last);
          lastLines.set(deployment, fresh.at(-1)?.n ?? last);
          return fresh.map((line) => ({ kind: "log", deployment, agent, line }));
        }
        case "progress":
          return [{ kind: "progress", progress: event.data }];
        case "end":
          ended = true;
          return [];
        default:
          return event satisfies never;
      }
    },
  };
}

/** As it was in a state that it has left by now; what it is comes next. Null where that tells nothing. */
function passedThrough(before: DeploymentDto, state: DeploymentState): DeploymentDto | null {
  if (isTerminal(before.state) || isTerminal(state)) return null;
  return { ...before, state, reason: null, stalledSince: null };
}

function isNewsAfter(before: DeploymentDto | undefined, now: DeploymentDto): boolean {
  return (
    before === undefined ||
    before.state !== now.state ||
    before.stalledSince !== now.stalledSince ||
    before.stopRequested !== now.stopRequested ||
    before.lateOutcome?.at !== now.lateOutcome?.at ||
    standingOf(before.state, before.contact) !== standingOf(now.state, now.contact)
  );
}
