/** `nixdeploy push --watch-exec -- CMD`: runs CMD, and pushes what is built meanwhile. */
import { describeFailed, watchAndPush } from "../client/push/watch-and-push.ts";
import { watchStore } from "../client/push/watch-store.ts";
import { describeError, NixdeployError, ProgramEnded } from "../errors.ts";
import type { RunUploadOptions } from "../nix/cache/upload/upload.ts";
import { loadUploadPlan, runUpload } from "../nix/cache/upload/upload.ts";
import { connectDaemon } from "../nix/daemon/connect.ts";
import type { StorePath } from "../nix/store-path.ts";
import { formatBytes, formatCount } from "../quantity.ts";
import type { CommandContext } from "./command-line/context.ts";
import { startChild } from "./run-child.ts";
import { printResult } from "./terminal/output.ts";

export type PushWatching = Pick<RunUploadOptions, "target" | "sign" | "jobs"> & {
  readonly words: readonly string[];
  readonly cache: string;
};

/**
 * Ends as CMD ends.
 * @throws ProgramEnded with CMD's exit code, unless that is 0 and everything is in the cache · NixdeployError when CMD
 *   could not be started, or succeeded and not all that it built could be pushed
 */
export async function pushWatching(context: CommandContext, options: PushWatching): Promise<void> {
  // A signal is for CMD; what it has built until then is pushed all the same. A second one ends us.
  const { signal } = new AbortController();
  const openStore = () => connectDaemon({ signal, environment: context.env });
  await using watch = await watchStore({ openStore, clock: context.clock });
  context.log.debug("watching the store", { by: watch.by });
  const sent = { paths: 0, bytes: 0 };
  const child = startChild(options.words, context);
  const result = await watchAndPush({
    watch,
    ended: child.exited.then(() => {}),
    clock: context.clock,
    signal,
    push: async (roots) => {
      const { uploadedPaths, uploadedBytes } = await pushRoots(context, { ...options, roots, signal });
      sent.paths += uploadedPaths;
      sent.bytes += uploadedBytes;
      context.log.debug(`pushed ${formatCount(uploadedPaths, "path")}`);
    },
    onTrouble: (error) => context.log.warn(`${describeError(error)}; it is tried again when the command has ended`),
  }).catch(async (error: unknown) => ({ built: [], failed: [], unknown: error, exitCode: await child.exited }));
  const exitCode = await child.exited;
  await report(context, { ...options, result, exitCode, sent });
}

type Result = Awaited<ReturnType<typeof watchAndPush>> & { readonly unknown?: unknown };

async function report(
  context: CommandContext,
  done: PushWatching & {
    readonly result: Result;
    readonly exitCode: number;
    readonly sent: { readonly paths: number; readonly bytes: number };
  },
): Promise<void> {
  const { result, exitCode, sent, cache } = done;
  const { built, failed } = result;
  const lost = failed.map(({ path, error }) => ({ path, reason: describeError(error) }));
  const json = { exitCode, built, failed: lost, uploaded: sent.paths, bytesUploaded: sent.bytes };
  if (context.json) await printResult(context, { json, text: "" });
  const isWhole = failed.length === 0 && result.unknown === undefined;
  if (isWhole) {
    context.log.info(
      built.length === 0
        ? "nothing was built meanwhile: nothing to push"
        : `${formatCount(built.length, "path")} built meanwhile: pushed ${formatCount(sent.paths, "path")} into the cache ${cache}, ${formatBytes(sent.bytes)} sent`,
    );
    if (exitCode !== 0) throw new ProgramEnded(exitCode);
    return;
  }
  const why = result.unknown === undefined ? describeFailed(failed) : describeError(result.unknown);
  const what = result.unknown === undefined ? `${failed.length} of ${formatCount(built.length, "path")}` : "the store";
  const failure = new NixdeployError("refused", `cannot push what was built: ${what}: ${why}`, {
    details: failed.map(({ path }) => path),
    hint: `The command itself ended with ${exitCode}. Push again: nixdeploy push PATH`,
  });
  if (exitCode === 0) throw failure;
  context.log.error(failure.message);
  throw new ProgramEnded(exitCode);
}

async function pushRoots(
  context: CommandContext,
  { roots, signal, ...upload }: PushWatching & { readonly roots: readonly StorePath[]; readonly signal: AbortSignal },
) {
  const openStore = (jobSignal: AbortSignal) => connectDaemon({ signal: jobSignal, environment: context.env });
  await using store = await openStore(signal);
  // What the command has removed again nobody wants.
  const there = await store.queryValidPaths(roots);
  const plan = await loadUploadPlan({
    roots: roots.filter((root) => there.has(root)),
    store,
    target: upload.target,
    signal,
  });
  const { clock, random } = context;
  return await runUpload({ ...upload, plan, openStore, clock, random, signal, onEvent: () => {} });
}
