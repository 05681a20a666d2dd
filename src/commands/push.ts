/** `nixdeploy push`: brings closures from the local store into a cache. */
import { loadDefaultCache } from "../client/api/workspace-caches.ts";
import { readPushPaths } from "../client/push/push-paths.ts";
import { NixdeployError } from "../errors.ts";
import { parseCacheName } from "../names.ts";
import type { UploadPlan } from "../nix/cache/upload/plan-upload.ts";
import { loadUploadPlan, runUpload, type UploadResult } from "../nix/cache/upload/upload.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import type { PathInfo } from "../nix/path-info.ts";
import { signPathInfo } from "../nix/signature.ts";
import type { StorePath } from "../nix/store-path.ts";
import { formatBytes, formatCount } from "../quantity.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import type { CommandContext } from "./command-line/context.ts";
import { openCoordinator } from "./open-coordinator.ts";
import { pushWatching } from "./push-watching.ts";
import { readSigningKey } from "./signing-key.ts";
import { printResult } from "./terminal/output.ts";
import { createProgressLine } from "./terminal/progress-line.ts";
import { createPushProgress } from "./terminal/push-progress.ts";
import { workspaceArg } from "./workspace-arg.ts";

export const command = defineNixdeployCommand({
  name: "push",
  summary: "Upload closures into a cache",
  details:
    "Everything the paths refer to goes along; what the cache has already is left out. Without PATH, paths are read " +
    "from standard input. Prints the pushed paths.\n" +
    "With --watch-exec, what follows -- is a command. It is run, and everything that is built in this machine's store " +
    "meanwhile is in the cache when it has ended. The exit code is the command's, or 1 when it succeeded and a push did not.",
  examples: [
    { comment: "What `nix build` made", command: "nixdeploy push ./result" },
    { comment: "From a pipe", command: "nix build --print-out-paths | nixdeploy push" },
    { comment: "What would go?", command: "nixdeploy push --dry-run ./result" },
    {
      comment: "Whatever a command builds, while it builds; ends with its exit code",
      command: "nixdeploy push --watch-exec -- nix build .#everything",
    },
  ],
  args: {
    cache: {
      type: "string",
      valueHint: "NAME",
      parse: parseCacheName,
      description: "Where to (default: the workspace's default cache)",
    },
    workspace: workspaceArg("Into the default cache of this one (default: the token's, else default)"),
    signingKeyFile: {
      type: "string",
      valueHint: "FILE",
      description: "Sign here with this key as well (default: NIXDEPLOY_SIGNING_KEY)",
    },
    jobs: { type: "integer", min: 1, max: 32, default: "4", description: "NARs at once" },
    watchExec: { type: "boolean", description: "Run a command, and push what is built meanwhile" },
    dryRun: { type: "boolean", description: "List what would be uploaded, upload nothing" },
  },
  positionals: {
    paths: {
      label: "PATH",
      description:
        "A store path, or a symlink to one such as ./result; with --watch-exec the command and its arguments",
      repeatable: true,
    },
  },
  async run({ args, context }) {
    const { signal } = context;
    if (args.cache !== undefined && args.workspace !== undefined) {
      throw new NixdeployError("usage", "cannot push: --cache names a cache, so --workspace has nothing to choose");
    }
    if (args.watchExec) checkWatching(args);
    await using coordinator = await openCoordinator(context, "push");
    const sign = await loadSigner(context, args.signingKeyFile);
    if (args.watchExec) {
      const watched = args.cache ?? (await loadDefaultCache(coordinator, args.workspace, signal));
      const { jobs, paths: words } = args;
      const target = coordinator.uploadTarget(watched);
      return await pushWatching(context, { words, cache: watched, target, sign, jobs });
    }
    const roots = await readPushPaths({ words: args.paths, readStdin: context.readStdin, cwd: process.cwd() });
    const openStore = (jobSignal: AbortSignal) => connectDaemon({ signal: jobSignal, environment: context.env });
    await using store = await openStore(signal);
    const cache = args.cache ?? (await loadDefaultCache(coordinator, args.workspace, signal));
    const target = coordinator.uploadTarget(cache);
    const plan = await loadUploadPlan({ roots, store, target, signal });
    if (args.dryRun) return await printDryRun(context, { roots, plan });
    const progress = createPushProgress(createProgressLine(context), { plan, cache, clock: context.clock });
    await progress.start();
    try {
      const { clock, random } = context;
      const onEvent = progress.onEvent;
      const result = await runUpload({
        plan,
        openStore,
        target,
        sign,
        jobs: args.jobs,
        clock,
        random,
        signal,
        onEvent,
      });
      await progress.end(result);
      await printPushed(context, { roots, plan, result });
    } finally {
      await progress.clear();
    }
  },
});

/** @throws NixdeployError "usage" */
function checkWatching(args: { readonly paths: readonly string[]; readonly dryRun: boolean }): void {
  if (args.paths.length === 0) {
    throw new NixdeployError("usage", "cannot push what a command builds: no command is given", {
      hint: "For example: nixdeploy push --watch-exec -- nix build",
    });
  }
  if (args.dryRun) {
    throw new NixdeployError("usage", "cannot push: --dry-run does not go with --watch-exec, which runs the command");
  }
}

async function loadSigner(
  context: CommandContext,
  keyFile: string | undefined,
): Promise<((info: PathInfo) => string) | null> {
  const key = await readSigningKey(context.env, keyFile);
  return key === null ? null : (info) => signPathInfo(info, key);
}

async function printDryRun(
  context: CommandContext,
  { roots, plan }: { readonly roots: readonly StorePath[]; readonly plan: UploadPlan },
): Promise<void> {
  const missing = plan.missing.map((info) => info.storePath);
  const sizeBytes = plan.missing.reduce((total, info) => total + info.narSizeBytes, 0);
  const skipped = plan.closure.length - missing.length;
  const json = { paths: roots, missing, skipped, narBytes: sizeBytes };
  await printResult(context, { json, text: missing.join("\n") });
  context.log.info(
    `would push ${formatCount(missing.length, "path")} (${formatBytes(sizeBytes)} uncompressed), ${skipped} there already`,
  );
}

async function printPushed(
  context: CommandContext,
  pushed: { readonly roots: readonly StorePath[]; readonly plan: UploadPlan; readonly result: UploadResult },
): Promise<void> {
  const { roots, plan, result } = pushed;
  const json = {
    paths: roots,
    uploaded: result.uploadedPaths,
    skipped: plan.closure.length - result.uploadedPaths,
    bytesUploaded: result.uploadedBytes,
  };
  await printResult(context, { json, text: roots.join("\n") });
}
