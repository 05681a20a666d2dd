/** `nixdeploy cache`: address and keys of a binary cache, and who may read it. */
import type { CacheDto } from "../api/caches.ts";
import { NixdeployError } from "../errors.ts";
import { parseCacheName } from "../names.ts";
import { defineNixdeployCommand, defineNixdeployGroup, type PositionalDeclaration } from "./args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { printResult } from "./output.ts";

const NAME = {
  label: "NAME",
  description: "The cache",
  required: true,
  parse: parseCacheName,
} as const satisfies PositionalDeclaration;

const show = defineNixdeployCommand({
  name: "cache show",
  summary: "Show a cache's address, public keys and whether it is public",
  args: { dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const cache = await coordinator.loadCache(args.name, context.signal);
    await printResult(context, { json: cache, text: formatCache(cache) });
  },
});

const set = defineNixdeployCommand({
  name: "cache set",
  summary: "Make a cache public or private",
  details: "Everyone who reaches the coordinator can read a public cache. A private one asks for a token.",
  args: {
    public: { type: "boolean", description: "Readable without a token" },
    private: { type: "boolean", description: "Readable with a token only" },
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: NAME },
  async run({ args, context }) {
    if (args.public === args.private) {
      throw new NixdeployError("usage", "cannot set the cache: give one of --public and --private");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const cache = await coordinator.setCachePublic({ name: args.name, isPublic: args.public }, context.signal);
    await printResult(context, { json: cache, text: formatCache(cache) });
  },
});

export const command = defineNixdeployGroup({
  name: "cache",
  summary: "Show and set binary caches",
  commands: [show, set],
});

function formatCache(cache: CacheDto): string {
  const [first = "none", ...others] = cache.publicKeys;
  return [
    `name:        ${cache.name}`,
    `url:         ${cache.url}`,
    `public key:  ${first}`,
    ...others.map((key) => `             ${key}`),
    `readable by: ${cache.public ? "everyone" : "whoever has a token"}`,
  ].join("\n");
}
