/**
 * What a CI job knows about itself, recorded with every deployment it starts. Pure; GitHub Actions' variables
 * (docs.github.com, "Default environment variables"), which Forgejo and Gitea set as well.
 */
import type { z } from "zod";
import type { originSchema } from "../api/rollouts.ts";

export type Origin = z.input<typeof originSchema>;

/** @returns undefined when the environment says nothing */
export function readOrigin(env: Readonly<Record<string, string | undefined>>): Origin | undefined {
  const text = (name: string, lengthMax: number) => env[name]?.trim().slice(0, lengthMax) || undefined;
  const repository = text("GITHUB_REPOSITORY", 300);
  const commit = text("GITHUB_SHA", 100);
  const ref = text("GITHUB_REF", 300);
  const actor = text("GITHUB_ACTOR", 200);
  const server = text("GITHUB_SERVER_URL", 300);
  const run = text("GITHUB_RUN_ID", 100);
  const runUrl = server && repository && run ? `${server}/${repository}/actions/runs/${run}` : undefined;
  const origin: Origin = {
    ...(repository === undefined ? {} : { repository }),
    ...(commit === undefined ? {} : { commit }),
    ...(ref === undefined ? {} : { ref }),
    ...(runUrl === undefined ? {} : { runUrl }),
    ...(actor === undefined ? {} : { actor }),
  };
  return Object.keys(origin).length === 0 ? undefined : origin;
}
