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

const rotateKey = defineNixdeployCommand({
  name: "cache rotate-key",
  summary: "Give a cache another signing key",
  details:
    "The old key signs a statement about the new one, by which agents that have pinned it move to the new one at their next " +
    "contact, however many rotations later. Agents with --trusted-public-key, and nix.conf, need the new key given to them: " +
    "until the next rotation what is pushed is signed by both.",
  args: { dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const cache = await coordinator.rotateCacheKey(args.name, context.signal);
    await printResult(context, { json: cache, text: formatCache(cache) });
  },
});

export const command = defineNixdeployGroup({
  name: "cache",
  summary: "Show and set binary caches, and their keys",
  commands: [show, set, rotateKey],
});

function formatCache(cache: CacheDto): string {
  const [first = "none", ...others] = cache.publicKeys;
  return [
    `name:        ${cache.name}`,
    `url:         ${cache.url}`,
    `public key:  ${first}`,
    ...others.map((key) => `             ${key}`),
    ...cache.keyFingerprints.map((fingerprint) => `fingerprint: ${fingerprint}`),
    ...cache.keyStatements.map(({ oldKey, atMs }) => `before:      ${oldKey} (until ${formatDay(atMs)})`),
    `readable by: ${cache.public ? "everyone" : "whoever has a token"}`,
  ].join("\n");
}

function formatDay(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}
