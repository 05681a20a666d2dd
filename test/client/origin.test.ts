import { expect, test } from "bun:test";
import { originSchema } from "../../src/api/rollouts.ts";
import { formatOrigin, readOrigin } from "../../src/client/origin.ts";

test("facts of a GitHub Actions job", () => {
  const origin = readOrigin({
    GITHUB_REPOSITORY: "acme/fleet",
    GITHUB_SHA: "0123abc",
    GITHUB_REF: "refs/heads/main",
    GITHUB_SERVER_URL: "https://github.com",
    GITHUB_RUN_ID: "42",
    GITHUB_ACTOR: "ada",
  });
  expect(origin).toEqual({
    repository: "acme/fleet",
    commit: "0123abc",
    ref: "refs/heads/main",
    runUrl: "https://github.com/acme/fleet/actions/runs/42",
    actor: "ada",
  });
});

test("Gitea and Forgejo name a run by its number", () => {
  const job = {
    ...{ GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "acme/fleet", GITHUB_SERVER_URL: "https://git.example" },
    ...{ GITHUB_RUN_ID: "4711", GITHUB_RUN_NUMBER: "12" },
  };
  expect(readOrigin({ ...job, GITEA_ACTIONS: "true" })?.runUrl).toBe("https://git.example/acme/fleet/actions/runs/12");
  expect(readOrigin({ ...job, FORGEJO_ACTIONS: "true" })?.runUrl).toBe(
    "https://git.example/acme/fleet/actions/runs/12",
  );
  expect(readOrigin(job)?.runUrl).toBe("https://git.example/acme/fleet/actions/runs/4711");
});

test("facts of a GitLab job, of a branch and of a tag", () => {
  const job = {
    ...{ GITLAB_CI: "true", CI_PROJECT_PATH: "acme/fleet", CI_COMMIT_SHA: "0123abc", GITLAB_USER_LOGIN: "ada" },
    ...{ CI_COMMIT_REF_NAME: "main", CI_JOB_URL: "https://gitlab.example/acme/fleet/-/jobs/1" },
  };
  expect(readOrigin(job)).toEqual({
    repository: "acme/fleet",
    commit: "0123abc",
    ref: "refs/heads/main",
    runUrl: "https://gitlab.example/acme/fleet/-/jobs/1",
    actor: "ada",
  });
  expect(readOrigin({ ...job, CI_COMMIT_TAG: "v1" })?.ref).toBe("refs/tags/v1");
});

test("as people read it", () => {
  const origin = { repository: "acme/fleet", commit: "0123456789abcdef", ref: "refs/heads/main", actor: "ada" };
  expect(formatOrigin({ ...origin, runUrl: "https://x/1" })).toBe(
    "ada, acme/fleet@0123456789ab (refs/heads/main), https://x/1",
  );
  expect(formatOrigin({ actor: "ada" })).toBe("ada");
  expect(formatOrigin({})).toBe("");
});

test("a machine that is no CI says nothing; empty values count as unset", () => {
  expect(readOrigin({ HOME: "/root" })).toBeUndefined();
  expect(readOrigin({ GITHUB_SHA: " ", GITHUB_RUN_ID: "42" })).toBeUndefined();
});

test("over-long values are cut to what the API takes", () => {
  const long = "x".repeat(10_000);
  const origin = readOrigin({ GITHUB_REPOSITORY: long, GITHUB_SHA: long, GITHUB_REF: long, GITHUB_ACTOR: long });
  expect(originSchema.safeParse(origin).success).toBe(true);
});
