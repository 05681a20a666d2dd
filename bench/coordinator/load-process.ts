/**
 * The program of a process full of load agents, on a core of its own. Does what its parent says by messages
 * (`load.ts`), and answers each one.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { LoadAgent, type LoadContext, type Tally } from "./load-agent.ts";
import { type PlanName, planOf } from "./load-plan.ts";

export type LoadCommand =
  /** Makes agents with these numbers and connects them, so many at a time. */
  | { readonly kind: "connect"; readonly from: number; readonly to: number; readonly atOnce: number }
  | {
      readonly kind: "set";
      readonly url?: string;
      readonly token?: string | null;
      readonly plan?: PlanName;
      readonly stays?: boolean;
    }
  /** Counts from zero again; who is connected stays counted. */
  | { readonly kind: "reset" }
  | { readonly kind: "tally" }
  | { readonly kind: "close" };

export type LoadMessage = { readonly id: number; readonly command: LoadCommand };
export type LoadAnswer = { readonly id: number; readonly tally: Tally };

const LOOK_INTERVAL_MS = 5;
/** The name of a load agent. */
export const agentName = (number: number): string => `load-${number}`;

const tally: Tally = { connected: 0, complaints: [], ...zero() };
const context: LoadContext = { url: "", token: null, plan: { kind: "ignore" }, stays: false, tally };
const agents: LoadAgent[] = [];

function zero() {
  return {
    welcomes: 0,
    offers: 0,
    done: 0,
    acknowledgedReports: 0,
    proved: 0,
    closed: 0,
    lastWelcomeMs: 0,
    lastOfferMs: 0,
    firstReportMs: 0,
    lastDoneMs: 0,
  };
}

async function run(command: LoadCommand): Promise<void> {
  switch (command.kind) {
    case "connect":
      for (let number = command.from; number < command.to; number += 1) {
        const before = agents.length - tally.connected;
        if (before >= command.atOnce) await roomFor(command.atOnce);
        const agent = new LoadAgent(context, agentName(number));
        agents.push(agent);
        agent.connect();
      }
      await roomFor(1);
      return;
    case "set":
      if (command.url !== undefined) context.url = command.url;
      if (command.token !== undefined) context.token = command.token;
      if (command.plan !== undefined) context.plan = planOf(command.plan);
      if (command.stays !== undefined) context.stays = command.stays;
      return;
    case "reset":
      Object.assign(tally, zero());
      return;
    case "tally":
      return;
    case "close":
      context.stays = false;
      for (const agent of agents.splice(0)) agent.close();
      return;
    default:
      return command satisfies never;
  }
}

async function roomFor(atOnce: number): Promise<void> {
  while (agents.length - tally.connected >= atOnce) await sleep(LOOK_INTERVAL_MS);
}

if (import.meta.main) {
  process.on("message", (message: LoadMessage) => {
    run(message.command)
      .catch((error: unknown) => tally.complaints.push(String(error)))
      .finally(() => process.send?.({ id: message.id, tally } satisfies LoadAnswer));
  });
}
