/**
 * `nixdeploy cache use`: lets Nix on this machine read a cache of the coordinator. Writes our lines into nix.conf and, for a
 * private cache, a token into the netrc file; keeps everything else of both.
 */
import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { CacheDto } from "../api/caches.ts";
import { loadDefaultCache } from "../client/api/workspace-caches.ts";
import { chooseReadToken, type TokenChoice } from "../client/nix-files/cache-token.ts";
import { findNetrcEntry, netrcHost, withNetrcEntry } from "../client/nix-files/netrc.ts";
import { findCacheBlocks, formatNixModule, withCacheBlock } from "../client/nix-files/nix-conf.ts";
import { NixdeployError } from "../errors.ts";
import { type CacheName, parseCacheName } from "../names.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import { type Files, openFiles, saveFiles, sayRestart } from "./cache-use-files.ts";
import { removeUse } from "./cache-use-remove.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { resolveCoordinatorUrl, resolveToken } from "./coordinator-access.ts";
import { isMadeByNix, nixConfPath, readNetrcFile, requireWritable } from "./nix-files.ts";
import { openCoordinatorAt } from "./open-coordinator.ts";
import { printResult } from "./terminal/output.ts";

export const use = defineNixdeployCommand({
  name: "cache use",
  summary: "Let Nix on this machine read a cache",
  details:
    "Adds the cache and its key to nix.conf, and for a private cache a token to the netrc file (mode 0600), which Nix sends " +
    "to that host. Everything else in these files stays. Run again, it changes only what has changed: the key, a token that is " +
    "no good any more. Your own token is kept there only if it may do nothing but read; an admin token makes such a one.",
  examples: [
    { comment: "For the whole machine, as root", command: "nixdeploy cache use default" },
    { comment: "What would be written?", command: "nixdeploy cache use default --print" },
    { comment: "As it was before", command: "nixdeploy cache use default --remove" },
  ],
  args: {
    mode: {
      type: "enum",
      options: ["user", "system"],
      description: "Whose configuration: yours, or the machine's (default: the machine's for root)",
    },
    nixos: {
      type: "boolean",
      description: "Print the lines for configuration.nix instead of writing nix.conf",
    },
    remove: { type: "boolean", description: "Take our lines away again; asks no coordinator" },
    print: { type: "boolean", description: "Print what would be written, write nothing" },
  },
  positionals: {
    name: { label: "NAME", description: "The cache (default: the workspace's default one)", parse: parseCacheName },
  },
  async run({ args, context }) {
    const { name, nixos, remove, print } = args;
    if (remove && nixos) {
      throw new NixdeployError("usage", "cannot remove with --nixos: take the lines out of the configuration yourself");
    }
    const mode = args.mode ?? (process.getuid?.() === 0 ? "system" : "user");
    const files = await openFiles(context, mode);
    if (remove) {
      if (name !== undefined) return await removeUse(context, { name, files, print });
      throw new NixdeployError("usage", "cannot remove without a name: no coordinator is asked which cache is meant", {
        hint: `The comments in ${files.confPath} name those that it has.`,
      });
    }
    await runUse(context, { name, files, print, nixos });
  },
});

type Using = {
  readonly files: Files;
  readonly cache: CacheDto;
  /** Print the lines for a module. */
  readonly nixos: boolean;
  /** Something is written here: not by who prints lines for another machine. */
  readonly isLocal: boolean;
};

async function runUse(
  context: CommandContext,
  asked: {
    /** Undefined: none was named. */
    readonly name: CacheName | undefined;
    readonly files: Files;
    readonly print: boolean;
    readonly nixos: boolean;
  },
): Promise<void> {
  const { files, print, nixos } = asked;
  const { text: url } = await resolveCoordinatorUrl(context);
  const { text: token } = await resolveToken(context, "general", url);
  await using coordinator = openCoordinatorAt(context, { url, token });
  const name = asked.name ?? (await loadDefaultCache(coordinator, undefined, context.signal));
  const cache = await coordinator.loadCache(name, context.signal);
  if (!nixos && (await isMadeByNix(files.confPath))) throw madeByNix(files.confPath);
  const using = { files, cache, nixos, isLocal: !nixos || files.mode === "system" };
  const netrcFile = cache.public || !files.isNetrcNamed ? null : files.netrcPath;
  const conf = nixos ? files.conf : withCacheBlock(files.conf, { ...cache, netrcFile });
  const module = nixos ? formatNixModule(cache) : null;
  if (print) return await printPlan(context, { ...using, conf, module });
  let changed: readonly string[] = [];
  if (using.isLocal) {
    if (!cache.public && (await isMadeByNix(files.netrcPath))) throw netrcMadeByNix(files.netrcPath);
    for (const path of changedPaths(using)) await requireWritable(path);
    const netrc = cache.public ? files.netrc : await planNetrc(context, { ...using, coordinator, url, token });
    changed = await saveFiles(files, { conf, netrc, holdsToken: !cache.public });
  }
  const json = { ...describe(files, cache), changed, removed: false, module };
  await printResult(context, { json, text: module ?? "" });
  await sayUsed(context, { ...using, changed });
}

/** The netrc file with a token that reads the cache. */
async function planNetrc(
  context: CommandContext,
  using: Using & Pick<TokenChoice, "coordinator"> & { readonly url: string; readonly token: string },
): Promise<string> {
  const { files, cache, url, token } = using;
  const host = netrcHost(cache.url);
  const known = findNetrcEntry(files.netrc, host);
  const kept = known?.password ?? null;
  const reach = kept === null ? "invalid" : await tryKept(context, { url, token: kept, cache });
  if (reach === "this cache") return files.netrc;
  if (known !== null && !known.isOurs) throw otherEntry(files.netrcPath, host);
  if (reach === "others") requireNoOther(using);
  const password = await chooseReadToken({ ...using, own: token, hostName: hostname(), signal: context.signal });
  return withNetrcEntry(files.netrc, { host, password });
}

function changedPaths({ files, cache, nixos }: Using): readonly string[] {
  return [...(nixos ? [] : [files.confPath]), ...(cache.public ? [] : [files.netrcPath])];
}

/** What a token reads: who may not learn of a cache is told that there is none. */
async function tryKept(
  context: CommandContext,
  of: { readonly url: string; readonly token: string; readonly cache: CacheDto },
): Promise<"this cache" | "others" | "invalid"> {
  await using reader = openCoordinatorAt(context, of);
  try {
    await reader.loadCache(of.cache.name, context.signal);
    return "this cache";
  } catch (error) {
    if (!(error instanceof NixdeployError)) throw error;
    if (error.kind === "not-found") return "others";
    if (error.kind === "denied") return "invalid";
    throw error;
  }
}

/** Nix sends one password to a host, so two private caches of different workspaces cannot both be read from there. */
function requireNoOther({ files, cache }: Using): void {
  const host = netrcHost(cache.url);
  const other = findCacheBlocks(files.conf).find(({ name, url }) => name !== cache.name && netrcHost(url) === host);
  if (other === undefined) return;
  throw new NixdeployError("conflict", `cannot use the cache ${cache.name} beside ${other.name}: both are at ${host}`, {
    hint:
      `Nix sends one token to a host, and the one in ${files.netrcPath} does not read this cache. Make one of them public, ` +
      `or take the other away: nixdeploy cache use ${other.name} --remove`,
  });
}

function describe({ mode, confPath, netrcPath }: Files, cache: CacheDto) {
  const { name, url, publicKeys } = cache;
  return { cache: name, url, publicKeys, mode, nixConf: confPath, netrc: cache.public ? null : netrcPath };
}

async function printPlan(
  context: CommandContext,
  plan: Using & { readonly conf: string; readonly module: string | null },
): Promise<void> {
  const { files, cache, conf, module } = plan;
  const netrc = `# ${files.netrcPath}, mode 0600\nmachine ${netrcHost(cache.url)} login nixdeploy password nd_read_…\n`;
  const main = module ?? `# ${files.confPath}\n${conf}`;
  const text = cache.public ? main : `${main.trimEnd()}\n\n${netrc}`;
  await printResult(context, { json: { ...describe(files, cache), changed: [], removed: false, module }, text });
}

async function sayUsed(context: CommandContext, used: Using & { readonly changed: readonly string[] }): Promise<void> {
  const { files, cache, changed, isLocal, nixos } = used;
  const { log } = context;
  if (!isLocal) {
    if (!cache.public)
      log.info("the cache is private: run the same on the machine as root, which writes the token into its netrc");
    return;
  }
  const what = changed.length === 0 ? "nothing had to be changed" : `changed: ${changed.join(", ")}`;
  log.info(nixos ? what : `Nix reads ${cache.url} now; ${what}`);
  const shared = nixConfPath("system", context.env);
  const before = (await readNetrcFile(shared)) ?? join(dirname(shared), "netrc");
  if (files.isNetrcNamed && !cache.public && existsSync(before)) {
    log.warn(
      `Nix reads one netrc file, which is ${files.netrcPath} for you now: put what you need of ${before} there, too`,
    );
  }
  if (files.mode === "user") await sayTrust(context);
  else if (changed.length > 0 && !nixos) sayRestart(context, files.mode);
}

/** A daemon takes caches from those whom it trusts. Without a daemon there is nothing to say. */
async function sayTrust({ log, env, signal }: CommandContext): Promise<void> {
  try {
    await using daemon = await connectDaemon({ signal, environment: env, via: "socket" });
    if (daemon.trust !== "not-trusted") return;
    log.warn(
      "the Nix daemon does not trust this user, and ignores caches in this user's nix.conf: run it as root for the whole " +
        "machine, or add the user to `trusted-users` in /etc/nix/nix.conf and restart the daemon",
    );
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof NixdeployError)) throw error;
  }
}

function madeByNix(path: string): NixdeployError {
  return new NixdeployError("refused", `cannot change ${path}: it is made by Nix from a configuration`, {
    hint: "--nixos prints the lines for that configuration (nix.settings), and writes the token.",
  });
}

function netrcMadeByNix(path: string): NixdeployError {
  return new NixdeployError(
    "refused",
    `cannot write a token into ${path}: it is in the Nix store, which everybody may read`,
    {
      hint: "Let netrc-file of nix.conf name a file outside the store, or take that line and the link away.",
    },
  );
}

function otherEntry(path: string, host: string): NixdeployError {
  return new NixdeployError("conflict", `cannot write a token for ${host} into ${path}: there is an entry already`, {
    hint: "Nix takes the first one of a host, and that one does not read this cache. Remove it, or make the cache public.",
  });
}
