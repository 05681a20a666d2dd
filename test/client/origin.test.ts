import { expect, test } from "bun:test";
import { originSchema } from "../../src/api/rollouts.ts";
import { readOrigin } from "../../src/client/origin.ts";

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

test("a machine that is no CI says nothing; empty values count as unset", () => {
  expect(readOrigin({ HOME: "/root" })).toBeUndefined();
  expect(readOrigin({ GITHUB_SHA: " ", GITHUB_RUN_ID: "42" })).toBeUndefined();
});

test("over-long values are cut to what the API takes", () => {
  const long = "x".repeat(10_000);
  const origin = readOrigin({ GITHUB_REPOSITORY: long, GITHUB_SHA: long, GITHUB_REF: long, GITHUB_ACTOR: long });
  expect(originSchema.safeParse(origin).success).toBe(true);
});
