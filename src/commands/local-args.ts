/** For which agent of this machine a `local` command is, and the profile names that `agent` takes too. */
import { join, resolve } from "node:path";
import type { LocalTarget } from "../agent/local/local-target.ts";
import { parseAgentName } from "../names.ts";
import { NixParseError } from "../nix/parse-error.ts";
import { resolveProfilePath } from "../nix/profile.ts";
import type { ArgDeclarations, ArgValues } from "./command-line/args.ts";
import type { CommandContext, Environment } from "./command-line/context.ts";
import { resolveHome, resolveStateRoot } from "./command-line/directories.ts";

export const TARGET_ARGS = {
  name: {
    type: "string",
    valueHint: "NAME",
    parse: parseAgentName,
    description: "The agent of this machine, where there are several",
  },
  profile: {
    type: "string",
    valueHint: "PROFILE",
    parse: parseProfile,
    description: "The profile, a name or an absolute path (default: the agent's)",
  },
  stateDir: {
    type: "string",
    valueHint: "DIR",
    parse: (text: string) => resolve(text),
    description: "The agent's state directory, where it is not the usual one",
  },
} as const satisfies ArgDeclarations;

type TargetValues = ArgValues<typeof TARGET_ARGS, Readonly<Record<never, never>>>;

/** @throws NixdeployError("usage") when it is not clear which agent is meant */
export async function findTarget(args: TargetValues, { env }: Pick<CommandContext, "env">): Promise<LocalTarget> {
  const { listKnownAgents, readAgentFile } = await import("../agent/agent-file.ts");
  const { chooseTarget } = await import("../agent/local/local-target.ts");
  const agents = join(resolveStateRoot(env), "agents");
  return chooseTarget({
    name: args.name ?? null,
    profilePath: args.profile === undefined ? null : resolveProfile(args.profile, env),
    stateDirectory:
      args.stateDir === undefined ? null : { path: args.stateDir, agent: await readAgentFile(args.stateDir) },
    known: await listKnownAgents(agents),
    defaults: { profilePath: resolveProfile(null, env), stateDirectoryOf: (name) => join(agents, name) },
  });
}

export function resolveProfile(profile: string | null, env: Environment): string {
  return resolveProfilePath({
    profile,
    isRoot: process.getuid?.() === 0,
    home: resolveHome(env),
    stateHome: env["XDG_STATE_HOME"] ?? null,
  });
}

/** Checked here, so that a wrong one is a usage error; resolved when the environment is known. */
export function parseProfile(text: string): string {
  withoutFormat(() => resolveProfilePath({ profile: text, isRoot: true, home: "/", stateHome: null }));
  return text;
}

/** The flag says already what it should have been: only the reason is left of a parser's error. */
export function withoutFormat<Value>(parse: () => Value): Value {
  try {
    return parse();
  } catch (error) {
    throw error instanceof NixParseError ? new Error(error.reason) : error;
  }
}
