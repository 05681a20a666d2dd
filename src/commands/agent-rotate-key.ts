/** `nixdeploy agent rotate-key`: another key for an agent of this machine. */
import { join, resolve } from "node:path";
import { parseAgentName } from "../names.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { resolveStateRoot } from "./command-line/directories.ts";
import { printResult } from "./terminal/output.ts";

export const rotateKey = defineNixdeployCommand({
  name: "agent rotate-key",
  summary: "Give an agent of this machine another key",
  details:
    "The agent brings it to the coordinator, signed by the old one as well, within seconds if it runs, else when it starts. " +
    "The old key is refused from then on. Whatever dies meanwhile, one of the two gets in.",
  args: {
    name: { type: "string", valueHint: "NAME", required: true, parse: parseAgentName, description: "The agent" },
    stateDir: {
      type: "string",
      valueHint: "DIR",
      parse: (text) => resolve(text),
      description: "Its state directory, where it is not the usual one",
    },
    timeoutMs: {
      type: "duration",
      flag: "timeout",
      default: "1m",
      description: "How long to wait for a running agent",
    },
  },
  async run({ args, context }) {
    const { rotateAgentKey } = await import("../agent/rotate-key.ts");
    const stateDirectory = args.stateDir ?? join(resolveStateRoot(context.env), "agents", args.name);
    const rotated = await rotateAgentKey({ ...context, stateDirectory, timeoutMs: args.timeoutMs });
    await printResult(context, { json: rotated, text: rotated.fingerprint });
    if (rotated.state === "registered") return context.log.info(`${args.name} has this key now`);
    context.log.info(`${args.name} does not run: it has this key registered when it starts`);
  },
});
