/** `nixdeploy spec`: makes a deployment spec of what CI has evaluated or built, and shows what one says. */
import { open } from "node:fs/promises";
import { resolve } from "node:path";
import { createWorkspaceCacheReader } from "../client/api/workspace-caches.ts";
import type { CacheReader } from "../client/nix-files/cache-file.ts";
import { FILE_BYTES_MAX } from "../client/nix-files/cache-file.ts";
import { readBounded } from "../client/read-bounded.ts";
import type { DeploymentSpec } from "../client/spec/spec.ts";
import { type JobText, makeSpec, splitAttribute } from "../client/spec/spec-from-jobs.ts";
import { readSpec } from "../client/spec/spec-source.ts";
import { describeError, NixdeployError } from "../errors.ts";
import { formatCount } from "../quantity.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const make = defineNixdeployCommand({
  name: "spec",
  summary: "Make a deployment spec of what CI has evaluated or built, or show one",
  details:
    "Prints the spec as JSON. Nothing is evaluated or built: the lines are those of nix-eval-jobs, or what the jobs of a CI " +
    "matrix wrote down, a spec each or lines NAME=STORE-PATH. Everything that is wrong is said at once, and nothing is " +
    "printed then.",
  examples: [
    { comment: "All machines of a flake", command: "nixdeploy spec --from-eval-jobs jobs.json" },
    {
      comment: "What the jobs of a matrix have built",
      command: "nixdeploy spec --from-eval-jobs a.txt --from-eval-jobs b.txt",
    },
  ],
  args: {
    fromEvalJobs: {
      type: "string",
      repeatable: true,
      valueHint: "FILE",
      description: "Lines of nix-eval-jobs, specs, or NAME=STORE-PATH; - is standard input",
    },
    prefix: {
      type: "string",
      valueHint: "ATTRIBUTE",
      parse: splitAttribute,
      description: "Agents are what stands below this attribute; other jobs are left out",
    },
  },
  async run({ args, context }) {
    if (args.fromEvalJobs.length === 0) {
      throw new NixdeployError("usage", "cannot make a spec: no --from-eval-jobs FILE is given", {
        hint: "To see what a spec says: nixdeploy spec show SPEC",
      });
    }
    const texts: JobText[] = [];
    for (const name of args.fromEvalJobs) texts.push({ origin: name, text: await readText(context, name) });
    const spec = makeSpec(texts, { prefix: args.prefix ?? [] });
    await context.stdout.write(`${JSON.stringify(spec, null, 2)}\n`);
    context.log.info(`a spec for ${formatCount(Object.keys(spec.agents).length, "agent")}`);
  },
});

const show = defineNixdeployCommand({
  name: "spec show",
  summary: "Show what a deployment spec says",
  details:
    "Whether it is a spec at all, which path is for which agent, and its health checks. Whether agents and paths exist is " +
    "for the coordinator to say: nixdeploy activate --dry-run.",
  examples: [{ comment: "What `nix build` made", command: "nixdeploy spec show ./result" }],
  args: {},
  positionals: { spec: { label: "SPEC", description: "A file, a ./result symlink, or a store path", required: true } },
  async run({ args, context }) {
    const { signal } = context;
    const { spec, warnings } = await readSpec({
      ...{ words: [args.spec], cwd: process.cwd(), signal },
      cache: readWhenNeeded(context),
    });
    for (const warning of warnings) context.log.warn(warning);
    await printResult(context, { json: toJson(spec), text: formatSpec(spec) });
  },
});

export const command = defineNixdeployGroup({
  name: "spec",
  summary: "Make and show deployment specs",
  commands: [show],
  alone: make,
});

async function readText(context: CommandContext, name: string): Promise<string> {
  const bytes = name === "-" ? await readBounded(context.readStdin(), FILE_BYTES_MAX) : await readNamed(name);
  if (bytes !== null) return Buffer.from(bytes).toString("utf8");
  throw new NixdeployError("refused", `cannot read ${name}: it is larger than ${FILE_BYTES_MAX} bytes`);
}

/** @returns null for one that is too large */
async function readNamed(name: string): Promise<Uint8Array | null> {
  try {
    await using file = await open(resolve(process.cwd(), name), "r");
    return await readBounded(file.createReadStream({ autoClose: false }), FILE_BYTES_MAX);
  } catch (error) {
    throw new NixdeployError("usage", `cannot read ${name}: ${describeError(error)}`, { cause: error });
  }
}

/** Opens the coordinator's cache when a spec is neither a file nor in the local store. */
function readWhenNeeded(context: CommandContext): CacheReader {
  return {
    async readFile(path, options) {
      await using coordinator = await openCoordinator(context, "activate");
      return await createWorkspaceCacheReader(coordinator, undefined).readFile(path, options);
    },
  };
}

function toJson({ agents, rollbackScript, healthChecks }: DeploymentSpec) {
  return {
    agents: Object.fromEntries(agents),
    rollbackScript: Object.fromEntries(rollbackScript),
    healthChecks: healthChecks.forAll,
    agentHealthChecks: Object.fromEntries(healthChecks.byAgent),
  };
}

function formatSpec({ agents, rollbackScript, healthChecks }: DeploymentSpec): string {
  const checksOf = (name: string) => {
    const own = [...healthChecks.byAgent].find(([agent]) => agent === name)?.[1] ?? [];
    return [...healthChecks.forAll, ...own].map((check) => check.name).join(", ");
  };
  const tables = [
    formatTable(
      ["agent", "path", "health checks"],
      [...agents].map(([name, path]) => [name, path, checksOf(name)]),
    ),
    ...(rollbackScript.size === 0 ? [] : [formatTable(["system", "script"], [...rollbackScript])]),
  ];
  return tables.join("\n\n");
}
