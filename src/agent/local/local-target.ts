/**
 * For which agent of this machine something is done by hand: the one there is, the one that was named, or, where there
 * is none, a state directory of its own. Pure.
 */
import { NixdeployError } from "../../errors.ts";
import { type AgentName, parseAgentName } from "../../names.ts";
import type { KnownAgent } from "../agent-file.ts";

/** What is kept, and where its records are. */
export type LocalTarget = KnownAgent & {
  /** Some agent has run with it. */
  readonly hasAgent: boolean;
};

export type TargetQuestion = {
  /** What the command line says. */
  readonly name: AgentName | null;
  /** Absolute. */
  readonly profilePath: string | null;
  /** Absolute, with the agent whose it is, if any. */
  readonly stateDirectory: { readonly path: string; readonly agent: KnownAgent | null } | null;
  /** The agents whose state is in the usual place. */
  readonly known: readonly KnownAgent[];
  readonly defaults: { readonly profilePath: string; stateDirectoryOf(name: AgentName): string };
};

/** Where no agent ever ran. */
const NO_AGENT = parseAgentName("local");

/** @throws NixdeployError("usage") when it is not clear which, or what is said contradicts what is there */
export function chooseTarget(question: TargetQuestion): LocalTarget {
  const { name, profilePath, stateDirectory, known, defaults } = question;
  if (stateDirectory !== null) {
    const { path, agent } = stateDirectory;
    if (agent !== null) return withoutContradiction(agent, question);
    const ownName = name ?? NO_AGENT;
    return {
      ...{ name: ownName, stateDirectory: path, hasAgent: false, healthChecksFile: null },
      profilePath: profilePath ?? defaults.profilePath,
    };
  }
  const fitting = known.filter(
    (agent) => (name === null || agent.name === name) && (profilePath === null || agent.profilePath === profilePath),
  );
  const [only, ...more] = fitting;
  if (only !== undefined && more.length === 0) return { ...only, hasAgent: true };
  const named = known.find((agent) => agent.name === name);
  if (named !== undefined) return withoutContradiction(named, question);
  const isOpen = name === null && profilePath === null;
  if (only !== undefined || (isOpen && known.length > 0)) {
    throw new NixdeployError("usage", "cannot tell for which agent: this machine has several", {
      details: (only === undefined ? known : fitting).map(describe),
      hint: "Give one of them with --name.",
    });
  }
  const newName = name ?? NO_AGENT;
  return {
    ...{ name: newName, hasAgent: false, healthChecksFile: null, stateDirectory: defaults.stateDirectoryOf(newName) },
    profilePath: profilePath ?? defaults.profilePath,
  };
}

function withoutContradiction(agent: KnownAgent, { name, profilePath, stateDirectory }: TargetQuestion): LocalTarget {
  const where = stateDirectory === null ? "" : ` in ${stateDirectory.path}`;
  if (name !== null && name !== agent.name) {
    throw new NixdeployError("usage", `cannot use --name ${name}: the agent${where} is ${agent.name}`);
  }
  if (profilePath !== null && profilePath !== agent.profilePath) {
    throw new NixdeployError(
      "usage",
      `cannot use --profile ${profilePath}: the agent ${agent.name} keeps ${agent.profilePath}`,
      { hint: "Leave --profile out, or give the agent that keeps that profile with --name." },
    );
  }
  return { ...agent, hasAgent: true };
}

function describe({ name, profilePath }: KnownAgent): string {
  return `${name} keeps ${profilePath}`;
}
