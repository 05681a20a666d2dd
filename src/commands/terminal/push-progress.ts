/** How far a push is, in words: from the engine's events to the progress line. */
import type { UploadPlan } from "../../nix/cache/upload/plan-upload.ts";
import { planNars } from "../../nix/cache/upload/plan-upload.ts";
import type { UploadResult } from "../../nix/cache/upload/upload.ts";
import type { UploadEvent } from "../../nix/cache/upload/upload-nar.ts";
import { PART_PATIENCE_MS } from "../../nix/cache/upload/upload-parts.ts";
import { storePathBaseName } from "../../nix/store-path.ts";
import { formatBytes, formatCount, formatSpan } from "../../quantity.ts";
import type { Clock } from "../../runtime.ts";
import { addSample, describeSpeed, measureSpeed, type Sample } from "../../transfer-speed.ts";
import type { ProgressLine } from "./progress-line.ts";

/** NARs from this size on have a line of their own. */
const LARGE_NAR_BYTES = 10_000_000;

export type PushProgress = {
  start(): Promise<void>;
  readonly onEvent: (event: UploadEvent) => void;
  end(result: UploadResult): Promise<void>;
  /** Takes the changing line away. */
  clear(): Promise<void>;
};

export function createPushProgress(
  line: ProgressLine,
  push: { readonly plan: UploadPlan; readonly cache: string; readonly clock: Clock },
): PushProgress {
  const { closure, missing } = push.plan;
  const nars = planNars(missing);
  const totalBytes = nars.reduce((total, info) => total + info.narSizeBytes, 0);
  const there = closure.length - missing.length;
  let readBytes = 0;
  let sentBytes = 0;
  let doneNars = 0;
  /** Several NARs wait at once; it is said once. */
  let isWaiting = false;
  // Events come without waiting; what they print is written in their order.
  let printing: Promise<void> = Promise.resolve();
  const print = (write: () => Promise<void>) => {
    printing = printing.then(write);
  };
  // What is read is known from the start; what is sent, compressed, is what a person's network carries.
  const begun: readonly Sample[] = [{ atMs: push.clock.monotonicMs(), bytes: 0 }];
  let reading = begun;
  let sending = begun;
  const describe = () => {
    const nowMs = push.clock.monotonicMs();
    const sent = measureSpeed(sending, { nowMs, bytesTotal: sentBytes });
    const read = measureSpeed(reading, { nowMs, bytesTotal: totalBytes });
    const speed = sent === null ? null : { ...sent, secondsLeft: read?.secondsLeft ?? null };
    return [
      `${doneNars} of ${nars.length} NARs`,
      `${formatBytes(readBytes)} of ${formatBytes(totalBytes)}`,
      `${formatBytes(sentBytes)} sent`,
      ...describeSpeed(speed),
    ].join(", ");
  };

  return {
    async start() {
      if (missing.length === 0) return;
      const what = `${formatCount(missing.length, "path")} (${formatBytes(totalBytes)})`;
      await line.say(`pushing ${what} into the cache ${push.cache}, ${there} there already`);
    },
    onEvent(event) {
      switch (event.kind) {
        case "read":
          readBytes += event.bytes;
          reading = addSample(reading, { atMs: push.clock.monotonicMs(), bytes: readBytes });
          break;
        case "sent":
          if (isWaiting) print(() => line.say("the coordinator is there again"));
          isWaiting = false;
          sentBytes += event.bytes;
          sending = addSample(sending, { atMs: push.clock.monotonicMs(), bytes: sentBytes });
          break;
        case "uploaded":
          doneNars += 1;
          if (event.info.narSizeBytes >= LARGE_NAR_BYTES) print(() => line.say(describeUploaded(event)));
          break;
        case "waiting":
          if (!isWaiting) print(() => line.say(`${event.why}: trying again for ${formatSpan(PART_PATIENCE_MS)}`));
          isWaiting = true;
          break;
        case "start-anew": {
          const name = storePathBaseName(event.info.storePath);
          print(() => line.say(`the coordinator has forgotten the upload of ${name}: starting it anew`));
          break;
        }
        default:
          event satisfies never;
      }
      print(() => line.update(describe));
    },
    async end(result) {
      await printing;
      await line.say(describeEnd(push, result));
    },
    async clear() {
      await printing;
      await line.clear();
    },
  };
}

function describeEnd(
  { plan, cache }: { readonly plan: UploadPlan; readonly cache: string },
  { uploadedPaths, uploadedBytes }: UploadResult,
): string {
  return plan.missing.length === 0
    ? `nothing to do: the cache ${cache} has all of it (${formatCount(plan.closure.length, "path")})`
    : `pushed ${formatCount(uploadedPaths, "path")}: ${formatBytes(uploadedBytes)} sent`;
}

function describeUploaded({ info, fileSizeBytes }: Extract<UploadEvent, { kind: "uploaded" }>): string {
  const sizes = `${formatBytes(info.narSizeBytes)}, ${formatBytes(fileSizeBytes)} compressed`;
  return `${storePathBaseName(info.storePath)} (${sizes})`;
}
