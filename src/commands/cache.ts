/** `nixdeploy cache`: binary caches of a workspace, ours and foreign ones. */
import type { CacheDto, ForeignCacheDto } from "../api/caches.ts";
import { NixdeployError } from "../errors.ts";
import { formatCount } from "../quantity.ts";
import { DEFAULT_WORKSPACE, CACHE_NAME as NAME, parseKeyArgument, WORKSPACE } from "./cache-args.ts";
import { use } from "./cache-use.ts";
import { vouch } from "./cache-vouch.ts";
import { defineNixdeployCommand, defineNixdeployGroup } from "./command-line/args.ts";
import { DATA_DIR_ARG, openAdministration } from "./open-coordinator.ts";
import { formatTable, printResult } from "./terminal/output.ts";

const create = defineNixdeployCommand({
  name: "cache create",
  summary: "Make a further cache for a workspace, with a key of its own",
  details:
    "Agents ask it for what the workspace's default cache lacks. Those that pinned the workspace's keys take its key, " +
    "too; those with --trusted-public-key once a key of theirs vouches for it (nixdeploy cache vouch).",
  args: {
    workspace: WORKSPACE,
    public: { type: "boolean", description: "Readable without a token" },
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const { name, workspace } = args;
    const request = { name, public: args.public, ...(workspace === undefined ? {} : { workspace }) };
    const cache = await coordinator.createCache(request, context.signal);
    await printResult(context, { json: cache, text: formatCache(cache) });
  },
});

const list = defineNixdeployCommand({
  name: "cache list",
  summary: "List the caches, ours and foreign ones",
  args: { workspace: { ...WORKSPACE, description: "Only those of this workspace" }, dataDir: DATA_DIR_ARG },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const caches = await coordinator.listCaches(args.workspace, context.signal);
    const foreignCaches = await coordinator.listForeignCaches(args.workspace, context.signal);
    const keyVouchers = await coordinator.listKeyVouchers(args.workspace, context.signal);
    const rows = [...caches.map(formatRow), ...foreignCaches.map(formatForeignRow)];
    const text = formatTable(["cache", "workspace", "kind", "url"], rows);
    await printResult(context, { json: { caches, foreignCaches, keyVouchers }, text });
  },
});

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
  summary: "Make a cache public or private, or the default of its workspace",
  details: "Everyone who reaches the coordinator can read a public cache. A private one asks for a token.",
  args: {
    public: { type: "boolean", description: "Readable without a token" },
    private: { type: "boolean", description: "Readable with a token only" },
    default: { type: "boolean", description: "The first that agents ask, and where `push` brings things" },
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: NAME },
  async run({ args, context }) {
    const saysAccess = args.public || args.private;
    if ((args.public && args.private) || !(saysAccess || args.default)) {
      throw new NixdeployError("usage", "cannot set the cache: give one of --public and --private, or --default");
    }
    await using coordinator = await openAdministration(context, args.dataDir);
    const change = {
      ...(saysAccess ? { public: args.public } : {}),
      ...(args.default ? { default: true as const } : {}),
    };
    const cache = await coordinator.setCache(args.name, change, context.signal);
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

const remove = defineNixdeployCommand({
  name: "cache delete",
  summary: "Delete a cache that is not the default of its workspace",
  args: { force: { type: "boolean", description: "Although there are paths in it" }, dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const deleted = await coordinator.deleteCache({ name: args.name, force: args.force }, context.signal);
    await printResult(context, { json: deleted, text: "" });
    context.log.info(`deleted the cache ${deleted.name} with ${formatCount(deleted.paths, "path")}`);
  },
});

const addForeign = defineNixdeployCommand({
  name: "cache add-foreign",
  summary: "Let agents fetch from a cache of others what ours lack, or change its address and keys",
  details:
    "Agents that pinned the workspace's keys take its keys, too: the key of the oldest cache vouches for them. " +
    "Those with --trusted-public-key take them once a key of theirs does: nixdeploy cache vouch. It is never given a credential.",
  examples: [
    {
      comment: "What NixOS builds",
      command:
        "nixdeploy cache add-foreign nixos --substituter https://cache.nixos.org " +
        "--public-key cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
    },
  ],
  args: {
    substituter: { type: "string", valueHint: "URL", required: true, description: "Where it is" },
    publicKey: {
      type: "string",
      repeatable: true,
      required: true,
      valueHint: "NAME:BASE64",
      description: "What it signs with",
      parse: parseKeyArgument,
    },
    workspace: { ...WORKSPACE, description: "Whose agents (default: default)" },
    dataDir: DATA_DIR_ARG,
  },
  positionals: { name: { ...NAME, description: "What to call it" } },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const { name, substituter: url, publicKey: publicKeys, workspace = DEFAULT_WORKSPACE } = args;
    const saved = await coordinator.saveForeignCache({ workspace, name, url, publicKeys }, context.signal);
    await printResult(context, { json: saved, text: formatForeign(saved) });
  },
});

const removeForeign = defineNixdeployCommand({
  name: "cache remove-foreign",
  summary: "Let agents no longer fetch from a cache of others",
  args: { workspace: { ...WORKSPACE, description: "Whose agents (default: default)" }, dataDir: DATA_DIR_ARG },
  positionals: { name: NAME },
  async run({ args, context }) {
    await using coordinator = await openAdministration(context, args.dataDir);
    const { name, workspace = DEFAULT_WORKSPACE } = args;
    await coordinator.removeForeignCache({ workspace, name }, context.signal);
    await printResult(context, { json: { name, workspace, removed: true }, text: "" });
    context.log.info(`removed the foreign cache ${name} from the workspace ${workspace}`);
  },
});

export const command = defineNixdeployGroup({
  name: "cache",
  summary: "Make, show and set binary caches, and their keys",
  commands: [create, list, show, set, rotateKey, remove, addForeign, removeForeign, vouch, use],
});

function formatRow({ name, workspace, url, ...cache }: CacheDto): string[] {
  return [name, workspace, `${cache.public ? "public" : "private"}${cache.default ? ", default" : ""}`, url];
}

function formatForeignRow({ name, workspace, url }: ForeignCacheDto): string[] {
  return [name, workspace, "foreign", url];
}

function formatCache(cache: CacheDto): string {
  return [
    `name:        ${cache.name}`,
    `workspace:   ${cache.workspace}${cache.default ? ", its default" : ""}`,
    `url:         ${cache.url}`,
    ...formatKeys(cache.publicKeys),
    ...cache.keyFingerprints.map((fingerprint) => `fingerprint: ${fingerprint}`),
    ...cache.keyStatements.map(({ oldKey, atMs }) => `before:      ${oldKey} (until ${formatDay(atMs)})`),
    `readable by: ${cache.public ? "everyone" : "whoever has a token"}`,
  ].join("\n");
}

function formatForeign(cache: ForeignCacheDto): string {
  return [
    `name:        ${cache.name}`,
    `workspace:   ${cache.workspace}`,
    `url:         ${cache.url}`,
    ...formatKeys(cache.publicKeys),
  ].join("\n");
}

function formatKeys([first = "none", ...others]: readonly string[]): string[] {
  return [`public key:  ${first}`, ...others.map((key) => `             ${key}`)];
}

function formatDay(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}
