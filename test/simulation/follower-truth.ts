/**
 * What must hold of whoever follows. He comes to an end soon after the last deployment has; what he saw last is what the
 * coordinator says; he saw each state, in its order; and each line of the log, once.
 *
 * A restore takes back what was told. Whoever had seen the end before knows of what is not true any more, and of the others
 * the lines and states in between may be those of both histories: where they end is the truth all the same.
 */
import type { DeploymentDto } from "../../src/api/deployments.ts";
import { rolloutSchema } from "../../src/api/rollouts.ts";
import { type DeploymentState, isTerminal } from "../../src/deployment.ts";
import type { FollowerEnd } from "./follower.ts";
import { type Known, loadLines } from "./truth.ts";
import type { World } from "./world.ts";

/** Followers who still wait for something. */
export function findWaiting({ followers }: World): string[] {
  return followers.filter(({ end }) => end === null).map(({ rolloutId }) => `somebody still follows ${rolloutId}`);
}

/** At the end. */
export async function findWrongViews(world: World, known: Known): Promise<string[]> {
  const faults: string[] = [];
  for (const { rolloutId, end } of world.followers) {
    const answer = await world.request(`rollouts/${rolloutId}`);
    const isForgotten = answer?.status === 404;
    if (isForgotten && world.restored.length === 0) faults.push(`the rollout ${rolloutId} is not there any more`);
    if (end === null || isForgotten) continue;
    if (end.kind === "gone") {
      faults.push(`a follower of ${rolloutId} was told that there is no such rollout`);
      continue;
    }
    if (world.restored.some(({ atMs }) => atMs >= end.atMs)) continue;
    for (const truth of rolloutSchema.parse(answer?.body).deployments) {
      const said = await judgeView(truth, { world, known, end });
      faults.push(...said.map((fault) => `a follower of ${truth.id} ${fault}`));
    }
  }
  return faults;
}

type Judging = {
  readonly world: World;
  readonly known: Known;
  readonly end: Extract<FollowerEnd, { kind: "over" }>;
};

async function judgeView(truth: DeploymentDto, { world, known, end }: Judging): Promise<string[]> {
  const seen = end.deployments.find(({ id }) => id === truth.id);
  if (seen === undefined) return ["never saw it"];
  const { state, reason, fault, finishedAt, previousPath } = truth;
  const faults: string[] = [];
  for (const [name, value] of Object.entries({ state, reason, fault, finishedAt, previousPath })) {
    const told = Object.entries(seen).find(([key]) => key === name)?.[1];
    if (told !== value) faults.push(`saw the ${name} ${told} in the end, and it is ${value}`);
  }
  if (world.restored.some(({ atMs }) => atMs >= end.view.startedMs)) return faults;
  faults.push(...judgeStates(truth, { known, end }));
  const lines = end.view.lines.get(truth.id) ?? [];
  const stored = await loadLines(world, truth.id);
  // What the device said when it had ended already may have come after he had left.
  const awaited = truth.lateOutcome === null ? stored : stored.slice(0, lines.length);
  if (!Bun.deepEquals(lines.map(textOf), awaited.map(textOf))) {
    faults.push(`saw ${lines.length} lines, and there are ${awaited.length}`);
  }
  return faults;
}

const textOf = ({ n, stream, text }: { readonly n: number; readonly stream: string; readonly text: string }) =>
  `${n} ${stream} ${text}`;

/** Going back to the queue is no news to whoever was cut off meanwhile. */
function judgeStates({ id }: DeploymentDto, { known, end }: Omit<Judging, "world">): string[] {
  const initial = end.view.initial.find((each) => each.id === id)?.state ?? "queued";
  if (isTerminal(initial)) return [];
  const events = known.events.filter(({ deploymentId }) => deploymentId === id).map(({ state }) => state);
  const expected = distinct(events);
  const seen = distinct(end.view.states.get(id) ?? []);
  const unseen = expected.slice(0, expected.length - seen.length);
  const isWhole = Bun.deepEquals(expected.slice(unseen.length), seen);
  if (isWhole && (unseen.length === 0 || Bun.deepEquals(unseen, [initial]))) return [];
  return [`saw it ${seen.join(", ")}, and it was ${expected.join(", ")}`];
}

function distinct(states: readonly DeploymentState[]): DeploymentState[] {
  return states
    .filter((state) => state !== "queued")
    .filter((state, index, others) => index === 0 || others[index - 1] !== state);
}
