/** The agent's decisions about offers and cancels, as a table. */
import { expect, test } from "bun:test";
import { type AgentEvent, type AgentState, step } from "../../src/agent/lifecycle.ts";
import { offerOf } from "./offers.ts";

const A = offerOf("a");
const B = offerOf("b");
const C = offerOf("c");

const idle: AgentState = { kind: "idle" };
const onA: AgentState = { kind: "working", offer: A, next: null };
const onAThenB: AgentState = { kind: "working", offer: A, next: B };
const offered = (offer: typeof A, isFinished = false): AgentEvent => ({ kind: "offered", offer, isFinished });
const start = (offer: typeof A) => ({ kind: "start", offer }) as const;

const cases: readonly [what: string, from: AgentState, event: AgentEvent, to: AgentState, effect: unknown][] = [
  ["an idle agent starts", idle, offered(A), onA, start(A)],
  ["an offer whose outcome is known is no news", idle, offered(A, true), idle, null],
  ["a cancel of nothing", idle, { kind: "cancelled", deploymentId: A.deploymentId }, idle, null],
  ["the same offer again", onA, offered(A), onA, null],
  ["another offer is remembered", onA, offered(B), onAThenB, null],
  ["only the newest is remembered", onAThenB, offered(C), { ...onA, next: C }, null],
  ["a finished one is not remembered", onA, offered(B, true), onA, null],
  [
    "a cancel of the present one",
    onAThenB,
    { kind: "cancelled", deploymentId: A.deploymentId },
    onAThenB,
    { kind: "cancel", deploymentId: A.deploymentId },
  ],
  ["a cancel of the remembered one", onAThenB, { kind: "cancelled", deploymentId: B.deploymentId }, onA, null],
  ["a cancel of a stranger", onAThenB, { kind: "cancelled", deploymentId: C.deploymentId }, onAThenB, null],
  ["a lost contact forgets the remembered one", onAThenB, { kind: "contact-lost" }, onA, null],
  ["the end without a next one", onA, { kind: "finished", deploymentId: A.deploymentId }, idle, null],
  [
    "the end with a next one",
    onAThenB,
    { kind: "finished", deploymentId: A.deploymentId },
    { kind: "working", offer: B, next: null },
    start(B),
  ],
  ["the end of a stranger", onA, { kind: "finished", deploymentId: B.deploymentId }, onA, null],
];

for (const [what, from, event, to, effect] of cases) {
  test(what, () => expect(step(from, event)).toEqual({ state: to, effect } as ReturnType<typeof step>));
}
