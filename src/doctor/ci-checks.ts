/** What a CI job needs in its environment. Pure but for the list that it returns: everything is in the variables. */
import { type Check, type Finding, fault, ok, skipped } from "./finding.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** The variable that says it, and its name; the most particular first. */
const SYSTEMS = [
  ["FORGEJO_ACTIONS", "Forgejo Actions"],
  ["GITEA_ACTIONS", "Gitea Actions"],
  ["GITHUB_ACTIONS", "GitHub Actions"],
  ["GITLAB_CI", "GitLab CI"],
  ["CI", "a CI"],
] as const;

/** Null where this is no CI job. */
export function detectCi(environment: Environment): string | null {
  const found = SYSTEMS.find(([variable]) => !["", "false", "0", undefined].includes(environment[variable]));
  return found?.[1] ?? null;
}

export function createCiChecks(environment: Environment, system: string): readonly Check[] {
  return [{ group: "ci", name: "variables", look: async () => judgeVariables(environment, system) }];
}

const JOBS = [
  ["push", "NIXDEPLOY_PUSH_TOKEN"],
  ["activate", "NIXDEPLOY_ACTIVATE_TOKEN"],
] as const;

/** By names alone; what the tokens are is the coordinator's to say. */
export function judgeVariables(environment: Environment, system: string): readonly Finding[] {
  const has = (name: string) => environment[name] !== undefined || environment[`${name}_FILE`] !== undefined;
  const found: Finding[] = [ok(`this is a job of ${system}`)];
  const empty = ["NIXDEPLOY_URL", "NIXDEPLOY_TOKEN", "NIXDEPLOY_SIGNING_KEY", ...JOBS.map(([, name]) => name)].filter(
    (name) => environment[name] === "",
  );
  if (empty.length > 0) {
    found.push(
      fault(
        `${empty.join(", ")}: set, but empty`,
        "The secret is missing, or this job may not see it: pull requests from forks and unprotected branches do not.",
      ),
    );
  }
  if (!has("NIXDEPLOY_URL")) {
    found.push(fault("NIXDEPLOY_URL is not set", "Set it to the coordinator's address, as a variable of the project."));
  }
  const general = has("NIXDEPLOY_TOKEN");
  for (const [job, variable] of JOBS) {
    if (has(variable)) found.push(ok(`\`${job}\` has ${variable}`));
    else if (general) found.push(ok(`\`${job}\` has NIXDEPLOY_TOKEN`));
    else found.push(skipped(`\`${job}\` has no token here: it takes ${variable}, as a secret of the project`));
  }
  if (!general && JOBS.every(([, variable]) => !has(variable))) {
    found.push(
      fault(
        "there is no token at all",
        "nixdeploy token create --kind push, and --kind activate: secrets of the project.",
      ),
    );
  }
  return found;
}
