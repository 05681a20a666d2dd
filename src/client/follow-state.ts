/**
 * What following a rollout has seen so far, and what it means: lines to print, when it is over, with which exit code.
 * Pure; `follow.ts` brings the events.
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
import type { DeploymentDto, FollowEvent, LogLine } from "../api/deployments.ts";
import type { DeploymentState } from "../deployment.ts";
import type { DeploymentId } from "../names.ts";

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

export type FollowState = {
  /** In the order of the rollout. */
  readonly deployments: ReadonlyMap<DeploymentId, DeploymentDto>;
  /** Number of the last log line seen; a stream that is opened again may repeat some. */
  readonly lastLines: ReadonlyMap<DeploymentId, number>;
  /** The coordinator has said that nothing more will come. */
  readonly ended: boolean;
};

export type FollowNote =
  /** Something about a deployment, such as "nuc: fetching". */
  | { readonly kind: "state"; readonly deployment: DeploymentDto }
  | { readonly kind: "log"; readonly deployment: DeploymentId; readonly agent: string; readonly line: LogLine }
  | { readonly kind: "progress"; readonly progress: Extract<FollowEvent, { event: "progress" }>["data"] };

export function createFollowState(deployments: readonly DeploymentDto[]): FollowState {
  return {
    deployments: new Map(deployments.map((deployment) => [deployment.id, deployment])),
    lastLines: new Map(),
    ended: false,
  };
}

/** The state after `event`, and what of it is news. */
export function applyFollowEvent(state: FollowState, event: FollowEvent): { state: FollowState; notes: FollowNote[] } {
  switch (event.event) {
    case "deployment":
      return applyDeployment(state, event.data);
    case "log":
      return applyLog(state, event.data);
    case "progress":
      return { state, notes: [{ kind: "progress", progress: event.data }] };
    case "end":
      return { state: { ...state, ended: true }, notes: [] };
    default:
      return event satisfies never;
  }
}

export type FollowVerdict =
  | { readonly kind: "running" }
  /** Nothing runs; `final` when nothing can change any more either, so that `end` is going to come. */
  | { readonly kind: "over"; readonly exitCode: 0 | 1; readonly final: boolean };

export function decideFollow(deployments: Iterable<DeploymentDto>): FollowVerdict {
  const standings = [...deployments].map((deployment) => standingOf(deployment.state, deployment.contact));
  if (standings.includes("running")) return { kind: "running" };
  return { kind: "over", exitCode: standings.includes("bad") ? 1 : 0, final: !standings.includes("parked") };
}

/** Exit code when the time was up or the coordinator could not be reached any more. */
export function decideCutShort(deployments: Iterable<DeploymentDto>): 1 | 75 {
  return [...deployments].some(({ state, contact }) => standingOf(state, contact) === "bad") ? 1 : 75;
}

function applyDeployment(state: FollowState, deployment: DeploymentDto): { state: FollowState; notes: FollowNote[] } {
  const before = state.deployments.get(deployment.id);
  const isNews =
    before === undefined ||
    before.state !== deployment.state ||
    before.stalledSince !== deployment.stalledSince ||
    before.stopRequested !== deployment.stopRequested ||
    before.lateOutcome?.at !== deployment.lateOutcome?.at ||
    standingOf(before.state, before.contact) !== standingOf(deployment.state, deployment.contact);
  const deployments = new Map(state.deployments).set(deployment.id, deployment);
  return { state: { ...state, deployments }, notes: isNews ? [{ kind: "state", deployment }] : [] };
}

function applyLog(
  state: FollowState,
  log: Extract<FollowEvent, { event: "log" }>["data"],
): { state: FollowState; notes: FollowNote[] } {
  const last = state.lastLines.get(log.deployment) ?? 0;
  const lines = log.lines.filter((line) => line.n > last);
  const lastLines = new Map(state.lastLines).set(log.deployment, lines.at(-1)?.n ?? last);
  return {
    state: { ...state, lastLines },
    notes: lines.map((line) => ({ kind: "log", deployment: log.deployment, agent: log.agent, line })),
  };
}
