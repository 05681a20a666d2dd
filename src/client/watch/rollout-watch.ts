/** What is known of each deployment of a rollout while somebody looks on: its state, since when, bytes, its last line. */
import type { DeploymentDto, FollowEvent } from "../../api/deployments.ts";
import type { DeploymentId } from "../../names.ts";
import { addSample, type Sample } from "../../transfer-speed.ts";
import type { FollowNote } from "../follow/follow-state.ts";

export type Progress = Extract<FollowEvent, { event: "progress" }>["data"];

export type Watched = {
  readonly deployment: DeploymentDto;
  /** When it was first seen in its state; monotonic. */
  readonly sinceMs: number;
  readonly progress: Progress | null;
  readonly samples: readonly Sample[];
  readonly lastLine: string | null;
};

export type RolloutWatch = {
  /** In the order of the rollout. */
  readonly all: ReadonlyMap<DeploymentId, Watched>;
  note(note: FollowNote, nowMs: number): void;
};

export function createRolloutWatch(deployments: readonly DeploymentDto[], nowMs: number): RolloutWatch {
  const all = new Map<DeploymentId, Watched>();
  for (const deployment of deployments) all.set(deployment.id, begin(deployment, nowMs));
  return {
    all,
    note(note, nowMs) {
      const id =
        note.kind === "state" ? note.deployment.id : note.kind === "log" ? note.deployment : note.progress.deployment;
      const known = all.get(id);
      if (note.kind === "state") {
        const isSame = known?.deployment.state === note.deployment.state;
        all.set(id, isSame ? { ...known, deployment: note.deployment } : begin(note.deployment, nowMs));
      } else if (known !== undefined) {
        all.set(
          id,
          note.kind === "log" ? { ...known, lastLine: note.line.text } : advance(known, note.progress, nowMs),
        );
      }
    },
  };
}

function begin(deployment: DeploymentDto, nowMs: number): Watched {
  return { deployment, sinceMs: nowMs, progress: null, samples: [], lastLine: null };
}

function advance(known: Watched, progress: Progress, nowMs: number): Watched {
  return { ...known, progress, samples: addSample(known.samples, { atMs: nowMs, bytes: progress.bytes }) };
}
