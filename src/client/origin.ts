/**
 * What a CI job knows about itself, recorded with the rollout that it starts. Pure. Sources: GitHub "Default environment
 * variables" (which Forgejo and Gitea set as well), GitLab "Predefined CI/CD variables reference".
 */
import type { z } from "zod";
import type { originSchema, RolloutFactsDto } from "../api/rollouts.ts";
import { cleanLine } from "../printable.ts";

export type Origin = z.input<typeof originSchema>;
type Environment = Readonly<Record<string, string | undefined>>;

const LENGTHS = { repository: 300, commit: 100, ref: 300, runUrl: 1_000, actor: 200 } as const;

/** @returns undefined when the environment says nothing */
export function readOrigin(env: Environment): Origin | undefined {
  const facts = (env["GITLAB_CI"] ?? "") === "" ? readGitHub(env) : readGitLab(env);
  const origin: Origin = {};
  for (const key of ["repository", "commit", "ref", "runUrl", "actor"] as const) {
    const text = facts[key]?.trim().slice(0, LENGTHS[key]);
    if (text) origin[key] = text;
  }
  return Object.keys(origin).length === 0 ? undefined : origin;
}

type Facts = { readonly [Key in keyof Required<Origin>]: string | undefined };

function readGitHub(env: Environment): Facts {
  const { GITHUB_REPOSITORY: repository, GITHUB_SERVER_URL: server } = env;
  // Gitea and Forgejo name a run by its number in the repository, GitHub by an id.
  const isGitea = [env["GITEA_ACTIONS"], env["FORGEJO_ACTIONS"]].some((value) => (value ?? "") !== "");
  const run = isGitea ? env["GITHUB_RUN_NUMBER"] : env["GITHUB_RUN_ID"];
  return {
    repository,
    commit: env["GITHUB_SHA"],
    ref: env["GITHUB_REF"],
    runUrl: server && repository && run ? `${server}/${repository}/actions/runs/${run}` : undefined,
    actor: env["GITHUB_ACTOR"],
  };
}

function readGitLab(env: Environment): Facts {
  const { CI_COMMIT_TAG: tag, CI_COMMIT_REF_NAME: branch } = env;
  return {
    repository: env["CI_PROJECT_PATH"],
    commit: env["CI_COMMIT_SHA"],
    ref: tag ? `refs/tags/${tag}` : branch ? `refs/heads/${branch}` : undefined,
    runUrl: env["CI_JOB_URL"] || env["CI_PIPELINE_URL"],
    actor: env["GITLAB_USER_LOGIN"],
  };
}

/** `alice, acme/fleet@0123456789ab (refs/heads/main), https://…`; "" when nothing is known. */
export function formatOrigin({ actor, repository, commit, ref, runUrl }: Origin): string {
  const at = commit === undefined ? "" : `@${commit.slice(0, 12)}`;
  const what = `${repository ?? ""}${at}${ref === undefined ? "" : ` (${ref})`}`.trim();
  return [actor, what, runUrl].filter((part) => part !== undefined && part !== "").join(", ");
}

/** `rollout …: new kernel; started by alice, acme/fleet@0123456789ab (refs/heads/main), https://…`; "" for nothing to say. */
export function describeStart({ id, description, origin, startedBy }: RolloutFactsDto): string {
  const facts = formatOrigin(origin);
  const token = startedBy === null || startedBy.description === "" ? "" : `token "${startedBy.description}"`;
  const who = [facts, token].filter((part) => part !== "").join(", ");
  const parts = [description ?? "", who === "" ? "" : `started by ${who}`].filter((part) => part !== "");
  return parts.length === 0 ? "" : cleanLine(`rollout ${id}: ${parts.join("; ")}`);
}
