/**
 * Which agent a state directory belongs to: `agent.json`, written at each start that finds something else in it, so that
 * `nixdeploy local` can find the agents of a machine and what they keep. The agent itself never reads it.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type AgentName, parseAgentName } from "../names.ts";
import { parsedWith } from "../protocol.ts";
import { writeDurableFile } from "./machine/durable-file.ts";
import { hasCode, isMissing } from "./machine/system-error.ts";

const agentFileSchema = z.object({
  name: parsedWith(parseAgentName),
  /** Absolute path of the profile's link. */
  profilePath: z.string().startsWith("/"),
  /** Its `--health-checks`, absolute. */
  healthChecksFile: z.string().startsWith("/").nullable().default(null),
});

export type KnownAgent = {
  readonly name: AgentName;
  readonly profilePath: string;
  readonly healthChecksFile: string | null;
  readonly stateDirectory: string;
};

const FILE_NAME = "agent.json";

/** @throws the system's error */
export async function writeAgentFile(
  stateDirectory: string,
  { name, profilePath, healthChecksFile }: Omit<KnownAgent, "stateDirectory">,
): Promise<void> {
  const before = await readAgentFile(stateDirectory);
  const text = `${JSON.stringify({ name, profilePath, healthChecksFile })}\n`;
  if (before !== null && text === `${JSON.stringify({ ...before, stateDirectory: undefined })}\n`) return;
  await writeDurableFile({ path: join(stateDirectory, FILE_NAME), text, mode: 0o600 });
}

/** @returns null where no agent has ever run, or its file is damaged */
export async function readAgentFile(stateDirectory: string): Promise<KnownAgent | null> {
  try {
    const parsed = agentFileSchema.safeParse(JSON.parse(await readFile(join(stateDirectory, FILE_NAME), "utf8")));
    return parsed.success ? { ...parsed.data, stateDirectory } : null;
  } catch (error) {
    if (isMissing(error) || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** The agents whose state is in the usual place, by name. @param parent the folder of the state directories */
export async function listKnownAgents(parent: string): Promise<readonly KnownAgent[]> {
  const known: KnownAgent[] = [];
  for (const name of (await listNames(parent)).sort()) {
    const agent = await readAgentFile(join(parent, name));
    if (agent !== null) known.push(agent);
  }
  return known;
}

async function listNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error) || hasCode(error, "EACCES")) return [];
    throw error;
  }
}
