/**
 * What an agent does about offers and cancels: the decisions, as a pure function of state and event.
 *
 * One deployment at a time.
 *
 *   state     event                         next      effect
 *   idle      offer                         working   start it
 *   idle      offer, already finished       idle      (its outcome is being delivered)
 *   working   the same offer again          working
 *   working   another offer                 working   remembered; the newest one only
 *   working   cancel of it                  working   cancel it: takes effect only before activation
 *   working   cancel of the remembered one  working   forgotten
 *   working   contact lost                  working   the remembered one is forgotten: it is offered again if still wanted
 *   working   it is finished                idle, or working with `start` on the remembered one
 *
 * Anything else changes nothing. A newer deployment does not interrupt the present one: the coordinator, which knows
 * which is newer, cancels it when it wants that.
 */
import type { DeploymentId } from "../names.ts";
import type { Offer } from "../protocol.ts";

export type AgentState =
  | { readonly kind: "idle" }
  | { readonly kind: "working"; readonly offer: Offer; readonly next: Offer | null };

export type AgentEvent =
  | { readonly kind: "offered"; readonly offer: Offer /** Its outcome is known here. */; readonly isFinished: boolean }
  | { readonly kind: "cancelled"; readonly deploymentId: DeploymentId }
  | { readonly kind: "finished"; readonly deploymentId: DeploymentId }
  | { readonly kind: "contact-lost" };

export type AgentEffect =
  | { readonly kind: "start"; readonly offer: Offer }
  | { readonly kind: "cancel"; readonly deploymentId: DeploymentId };

export type AgentStep = { readonly state: AgentState; readonly effect: AgentEffect | null };

export function step(state: AgentState, event: AgentEvent): AgentStep {
  return state.kind === "idle" ? stepIdle(state, event) : stepWorking(state, event);
}

function stepIdle(state: AgentState, event: AgentEvent): AgentStep {
  if (event.kind !== "offered" || event.isFinished) return { state, effect: null };
  return begin(event.offer);
}

function stepWorking(state: Extract<AgentState, { kind: "working" }>, event: AgentEvent): AgentStep {
  const current = state.offer.deploymentId;
  switch (event.kind) {
    case "offered": {
      const isNews = event.offer.deploymentId !== current && !event.isFinished;
      return { state: isNews ? { ...state, next: event.offer } : state, effect: null };
    }
    case "cancelled": {
      if (event.deploymentId === current) return { state, effect: { kind: "cancel", deploymentId: current } };
      const isNext = event.deploymentId === state.next?.deploymentId;
      return { state: isNext ? { ...state, next: null } : state, effect: null };
    }
    case "finished":
      if (event.deploymentId !== current) return { state, effect: null };
      return state.next === null ? { state: { kind: "idle" }, effect: null } : begin(state.next);
    case "contact-lost":
      return { state: { ...state, next: null }, effect: null };
    default:
      return event satisfies never;
  }
}

function begin(offer: Offer): AgentStep {
  return { state: { kind: "working", offer, next: null }, effect: { kind: "start", offer } };
}
