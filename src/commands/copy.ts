/** `nixdeploy copy`: closures between this machine and others over plain SSH, without a coordinator. */
import { hostname } from "node:os";
import { join } from "node:path";
import type { AfterCopy, AfterCopyEnd } from "../client/copy/after-copy.ts";
import type { CopyDeps, CopyRequest, CopyResult } from "../client/copy/copy-host.ts";
import type { HostEnd } from "../client/copy/copy-hosts.ts";
import { readPushPaths } from "../client/push/push-paths.ts";
import { formatSshAddress, isSshUrl, parseSshAddress, type SshAddress } from "../client/ssh/ssh-address.ts";
import { describeError, NixdeployError } from "../errors.ts";
import { cleanLine } from "../printable.ts";
import { formatBytes, formatCount } from "../quantity.ts";
import { type ArgValues, defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { resolveStateRoot } from "./command-line/directories.ts";
import { AFTER_ARGS, readAfterCopy } from "./copy-after-args.ts";
import { readSigningKey } from "./signing-key.ts";
import { type CopyProgress, createCopyProgress } from "./terminal/copy-progress.ts";
import { printResult } from "./terminal/output.ts";
import { createProgressLine } from "./terminal/progress-line.ts";
import { askSecretLine, askYes } from "./terminal/terminal.ts";

const ARGS = {
  to: {
    type: "string",
    repeatable: true,
    valueHint: "ssh://USER@HOST",
    parse: parseSshAddress,
    description: "Copy to this host; several hosts are done at once",
  },
  from: {
    type: "string",
    valueHint: "ssh://USER@HOST",
    parse: parseSshAddress,
    description: "Copy from this host to this machine",
  },
  ...AFTER_ARGS,
  noSign: { type: "boolean", description: "Sign nothing, and leave it to the other side whether it takes that" },
  yes: { type: "boolean", description: "Let the signing key be trusted over there without asking" },
  signingKeyFile: {
    type: "string",
    valueHint: "FILE",
    description: "Sign with this key (default: NIXDEPLOY_SIGNING_KEY, else one that is made at the first need)",
  },
  noCompress: { type: "boolean", description: "Do not let ssh compress: for fast networks" },
  jobs: { type: "integer", min: 1, max: 8, default: "4", description: "Paths at once, for each host" },
  hostsAtOnce: { type: "integer", min: 1, max: 100, default: "10", description: "Hosts at once" },
} as const;
type Values = ArgValues<typeof ARGS, Readonly<Record<never, never>>>;

export const command = defineNixdeployCommand({
  name: "copy",
  summary: "Copy closures to or from hosts over SSH, without a coordinator",
  details:
    "The other side needs Nix 2.8 or newer and nothing of ours. Everything the paths refer to goes along; what is there " +
    "already is left out, so a copy that was interrupted goes on where it was. Of a .drv everything goes along that is " +
    "needed to build it. Without PATH, paths are read from standard input. It is your ssh that connects, with your " +
    "configuration; NIX_SSHOPTS adds options.",
  examples: [
    { comment: "What `nix build` made", command: "nixdeploy copy --to ssh://root@nuc ./result" },
    { comment: "To several hosts", command: "nixdeploy copy --to ssh://root@nuc --to ssh://root@pi ./result" },
    { comment: "A system, which must prove itself", command: "nixdeploy copy --to ssh://root@nuc --switch ./result" },
    { comment: "From a host", command: "nixdeploy copy --from ssh://nuc /nix/store/…" },
  ],
  args: ARGS,
  positionals: {
    paths: {
      label: "PATH",
      description: "A store path, or a symlink to one such as ./result",
      repeatable: true,
    },
  },
  async run({ args, context }) {
    const { direction, hosts, words } = readDirection(args, args.paths);
    const paths = await readPushPaths({ words, readStdin: context.readStdin, cwd: process.cwd(), verb: "copy" });
    const after = readAfterCopy(args, { direction, paths });
    // A program that is in the store comes with all it needs.
    const program = after.kind === "system" ? (after.binary?.storePath ?? null) : null;
    const request: CopyRequest = {
      ...{ direction, sign: !args.noSign, compress: !args.noCompress, jobs: args.jobs },
      paths: [...paths, ...(program === null ? [] : [program])],
    };
    const progress = createCopyProgress(createProgressLine(context), { clock: context.clock, verb: "copy" });
    try {
      const ends = await copyAll(hosts, { request, after, args, context, progress });
      await progress.clear();
      await printCopied(context, { paths, ends });
      const { summarizeFailures } = await import("../client/copy/copy-hosts.ts");
      const failure = summarizeFailures(`copy ${direction}`, ends.map(judgeEnd));
      if (failure !== null) throw failure;
    } finally {
      await progress.clear();
    }
  },
});

/** Hosts may also stand among the paths, as nix-copy-closure has it: then they are where to. */
function readDirection(args: Values, words: readonly string[]) {
  const hosts = [...args.to];
  try {
    hosts.push(...words.filter(isSshUrl).map(parseSshAddress));
  } catch (error) {
    throw new NixdeployError("usage", `cannot copy: ${describeError(error)}`);
  }
  const rest = words.filter((word) => !isSshUrl(word));
  if (args.from !== undefined && hosts.length > 0) {
    throw new NixdeployError("usage", "cannot copy: give either --to or --from, not both");
  }
  if (args.from !== undefined) return { direction: "from" as const, hosts: [args.from], words: rest };
  if (hosts.length > 0) return { direction: "to" as const, hosts: withoutRepetition(hosts), words: rest };
  throw new NixdeployError("usage", "cannot copy: no host is given", {
    hint: "Name one with --to or --from, for example --to ssh://root@nuc.",
  });
}

function withoutRepetition(hosts: readonly SshAddress[]): readonly SshAddress[] {
  return [...new Map(hosts.map((host) => [formatSshAddress(host), host])).values()];
}

type Copied = CopyResult & { readonly after: AfterCopyEnd };

/** A host whose system is not what was asked for has failed, although the closure is there. */
function judgeEnd(end: HostEnd<Copied>): HostEnd<Copied> {
  const system = end.kind === "done" ? end.result.after.system : null;
  if (system === null || system.outcome === "succeeded") return end;
  const { host } = end;
  const error = new NixdeployError(
    "refused",
    `cannot activate on ${host}: it ended ${system.outcome}: ${system.reason}`,
  );
  return { kind: "failed", host, error };
}

type CopyAll = {
  readonly request: CopyRequest;
  readonly after: AfterCopy;
  readonly args: Values;
  readonly context: CommandContext;
  readonly progress: CopyProgress;
};

async function copyAll(
  hosts: readonly SshAddress[],
  { request, after, args, context, progress }: CopyAll,
): Promise<readonly HostEnd<Copied>[]> {
  const { forEachHost } = await import("../client/copy/copy-hosts.ts");
  const { copyWithHost } = await import("../client/copy/copy-host.ts");
  const { checkAfterCopy, finishCopy } = await import("../client/copy/after-copy.ts");
  const deps: CopyDeps = {
    loadKey: createKeyLoader(args, context, progress),
    ...createQuestions(args, context, progress),
    note: progress.say,
    onEvent: progress.onEvent,
    environment: { ...context.env },
    ...{ clock: context.clock, random: context.random, signal: context.signal },
  };
  const finishing = {
    ...{ note: progress.say, clock: context.clock, signal: context.signal, askSecret: deps.askSecret },
    onLine: (host: string, text: string) => progress.say(`${host}: ${cleanLine(text)}`),
  };
  return await forEachHost({
    hosts: hosts.map((address) => ({ name: formatSshAddress(address), address })),
    atOnce: args.hostsAtOnce,
    signal: context.signal,
    work: async ({ address }) =>
      await copyWithHost(address, request, deps, {
        check: (receiver) => checkAfterCopy(after, receiver),
        after: async (copying) => await finishCopy(after, copying, finishing),
      }),
    onFailed: (host, error) => {
      if (hosts.length > 1) progress.say(`${host}: failed: ${describeError(error)}`);
    },
  });
}

/** Once for all hosts. */
function createKeyLoader(args: Values, context: CommandContext, progress: CopyProgress): CopyDeps["loadKey"] {
  const load = async () => {
    const given = await readSigningKey(context.env, args.signingKeyFile);
    if (given !== null) return given;
    const { ensureSigningKey } = await import("../client/copy/signing.ts");
    return await ensureSigningKey(join(resolveStateRoot(context.env), "copy/signing-key"), {
      hostName: hostname(),
      random: context.random,
      onMade: (path) => progress.say(`made a key to sign with, which stays here: ${path}`),
    });
  };
  let loading: ReturnType<CopyDeps["loadKey"]> | null = null;
  return () => {
    loading ??= load();
    return loading;
  };
}

/** One question at a time, however many hosts there are. */
function createQuestions(
  args: Values,
  context: CommandContext,
  progress: CopyProgress,
): Pick<CopyDeps, "confirm" | "askSecret"> {
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <Answer>(ask: () => Promise<Answer>): Promise<Answer> => {
    const answer = last.then(async () => {
      await progress.clear();
      return await ask();
    });
    last = answer.catch(() => {
      // Whoever asked has the error.
    });
    return answer;
  };
  return {
    confirm: async (question) => (args.yes ? true : await inTurn(() => askYes(context, question))),
    askSecret: (question) => inTurn(() => askSecretLine(context, question)),
  };
}

async function printCopied(
  context: CommandContext,
  { paths, ends }: { readonly paths: readonly string[]; readonly ends: readonly HostEnd<Copied>[] },
): Promise<void> {
  const done = ends.flatMap((end) => (end.kind === "done" ? [end.result] : []));
  const failed = ends.flatMap((end) =>
    end.kind === "failed" ? [{ host: end.host, error: describeError(end.error) }] : [],
  );
  if (done.length === 0 && !context.json) return;
  const hosts = done.map(({ host, paths: total, copied, bytes, key, after }) => ({
    ...{ host, paths: total, copied, bytes, key },
    ...{ profile: after.profile, system: after.system },
  }));
  await printResult(context, { json: { paths, hosts, failed }, text: paths.join("\n") });
  for (const { host, copied, bytes, after } of done) {
    if (copied > 0) context.log.info(`${host}: copied ${formatCount(copied, "path")} (${formatBytes(bytes)})`);
    if (after.system !== null) context.log.info(`${host}: ${after.system.outcome}: ${after.system.reason}`);
    else if (after.profile !== null) context.log.info(`${host}: ${after.profile} names it`);
  }
}
