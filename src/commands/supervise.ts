/**
 * `nixdeploy supervise`: carries an activation that an agent has put on record to its end. Started by agents, and by
 * whatever comes up after them; harmless when there is nothing to do or somebody else does it.
 */
import { resolve } from "node:path";
import { defineNixdeployCommand } from "./command-line/args.ts";

export const command = defineNixdeployCommand({
  name: "supervise",
  summary: "Finish or undo the activation on record (started by the agent)",
  args: {
    stateDir: {
      type: "string",
      description: "The agent's state directory",
      valueHint: "DIR",
      required: true,
      parse: (text) => resolve(text),
    },
  },
  async run({ args, context }) {
    const { runLocalSupervisor } = await import("../agent/local-supervisor.ts");
    const end = await runLocalSupervisor({
      stateDirectory: args.stateDir,
      environment: context.env,
      clock: context.clock,
      random: context.random,
      logger: context.log,
      signal: context.signal,
    });
    context.log.debug(`supervise: ${end}`);
  },
});
